//! What a runner may not do: it reads files that strangers made.
//!
//! Before it reads the first byte of a model it gives up what it does not need. Where the system lacks one of
//! these, the others hold, and the server's log says which do ([`Confinement`]).
//!
//! - `files`: Landlock: reading, writing, TCP
//! - `calls`: seccomp: system calls that a model's process never makes
//! - `profile`: the same as a sandbox profile of macOS
//! - `privileges`: new privileges, core files, its end with the server's, who is ended when memory is short
//! - `confinement`: what holds; `available`: what could, for `hypura doctor`

mod available;
#[cfg(target_os = "linux")]
mod calls;
mod confinement;
#[cfg(target_os = "linux")]
mod files;
mod privileges;
#[cfg(any(target_os = "macos", test))]
mod profile;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod system;
#[cfg(test)]
mod tests;

pub use available::available;
pub use confinement::{Confinement, Hold};
pub use system::{confine, confine_quantizing, confine_trial, confine_worker};
