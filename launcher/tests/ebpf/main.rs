fn main() {
    use gait::kernel_programs::{LoadOptions, Programs};
    match Programs::load(&LoadOptions::default()) {
        Ok(programs) => println!("attached {}", programs.attached()),
        Err(error) => println!("{error}"),
    }
}
