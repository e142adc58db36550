//! The guard's side of an approval: one question at a time on the controlling terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::termios::{self, LocalFlags, SetArg};

use super::QUESTION_MAX;
use crate::exec::event::Approval;
use crate::sys::{process, signal};

/// Held while a question stands on the terminal.
static TERMINAL: Mutex<()> = Mutex::new(());

/// Opens the controlling terminal, if there is one.
pub(crate) fn terminal() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

/// Answers questions until the supervisor hangs up.
pub(crate) fn answer_all(line: &OwnedFd) {
    let mut message = vec![0; QUESTION_MAX];
    while let Ok(length @ 1..) = process::read(line.as_fd(), &mut message) {
        let Some((number, text)) = message[..length].split_first_chunk::<8>() else { continue };
        // There may be two lines, one for each who holds calls, but there is one terminal.
        let alone = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
        let answer =
            terminal().map_or(Approval::Unavailable, |tty| ask(&tty, &String::from_utf8_lossy(text)));
        drop(alone);
        let mut reply = number.to_vec();
        reply.push(answer as u8);
        if process::write(line.as_fd(), &reply).is_err() {
            return;
        }
    }
}

/// Asks one question. The terminal is put into line mode and the foreground for as long as it takes.
fn ask(tty: &File, text: &str) -> Approval {
    let foreground = signal::foreground_group(tty.as_fd()).ok();
    let own = signal::own_group();
    if foreground.is_some_and(|group| group != own) {
        // SIGTTOU is blocked in the guard, so this does not stop it.
        let _refused = signal::set_foreground_group(tty.as_fd(), own).is_err();
    }
    let before = termios::tcgetattr(tty).ok();
    if let Some(mut line_mode) = before.clone() {
        line_mode.local_flags |= LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        let _refused = termios::tcsetattr(tty, SetArg::TCSANOW, &line_mode).is_err();
    }
    // What was typed before the question is no answer to it.
    let _refused = termios::tcflush(tty, termios::FlushArg::TCIFLUSH).is_err();
    let answer = converse(tty, text);
    if let Some(before) = before {
        let _refused = termios::tcsetattr(tty, SetArg::TCSANOW, &before).is_err();
    }
    if let Some(group) = foreground.filter(|group| *group != own) {
        let _refused = signal::set_foreground_group(tty.as_fd(), group).is_err();
    }
    answer
}

fn converse(tty: &File, text: &str) -> Approval {
    let mut out = tty;
    let mut input = BufReader::new(tty);
    // The text comes from the workload in part: nothing in it may steer the terminal.
    let text: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    if write!(out, "\ngait: approval needed: {text}\n").is_err() {
        return Approval::Unavailable;
    }
    for _ in 0..3 {
        if write!(out, "gait: [o]nce, for this [s]ession, or [b]lock? ").and_then(|()| out.flush()).is_err() {
            return Approval::Unavailable;
        }
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return Approval::Unavailable,
            Ok(_) => match line.trim().to_ascii_lowercase().as_str() {
                "o" | "once" | "y" | "yes" => return Approval::Once,
                "s" | "session" => return Approval::Session,
                "b" | "block" | "n" | "no" => return Approval::Refused,
                _ => {}
            },
        }
    }
    Approval::Refused
}
