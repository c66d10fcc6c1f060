//! Programs on a terminal, as a person has it.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::process::{Child, Command};

/// Our side of a terminal must be ours alone: a program that held it too would keep its own terminal alive.
#[cfg(target_os = "linux")]
const OURS: OpenptFlags = OpenptFlags::CLOEXEC;
#[cfg(not(target_os = "linux"))]
const OURS: OpenptFlags = OpenptFlags::empty();

/// Starts a program on a terminal of its own; returns the other side of that.
pub fn on_terminal(command: &mut Command) -> (File, Child) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OURS).unwrap();
    fcntl_setfd(&master, FdFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let end = || OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    (File::from(master), child)
}

/// Reads until `text` is on the screen, and closes the terminal. It controls no program, so no signal tells.
pub fn leave(mut terminal: File, text: &str) {
    let (mut screen, mut bytes) = (String::new(), [0; 4096]);
    while !screen.contains(text) {
        let got = terminal.read(&mut bytes).unwrap();
        screen.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
}
