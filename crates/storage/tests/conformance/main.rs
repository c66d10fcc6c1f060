//! The contract of [`hypura_storage::Reader`], run over every reader of this machine: `pread`, `sim` and,
//! where the system allows it, io_uring.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod moving;
#[cfg(test)]
#[path = "../../src/required.rs"]
mod required;
#[cfg(test)]
mod scoped;
