//! The `gait` program: hands its arguments to the library and returns the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gait::cli::main(std::env::args_os().collect())
}
