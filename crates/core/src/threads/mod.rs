//! How many threads compute the next step.
//!
//! ggml's threads meet at a barrier after each node, several hundred times a token, and spin until the last
//! one is there. Where another program runs on one of the cores, each of those meetings may wait for a time
//! slice of that program: two threads on two cores beside one busy program were seen at a thirtieth of the
//! speed of one. So the number of threads follows what is measured: fewer while threads wait for cores, more
//! as soon as cores have nothing to do.
//!
//! [`ThreadPolicy`] decides, from [`Window`]s that the caller measured; it has no clock and asks nobody.
//!
//! - `window`: what is measured
//! - `policy`: answers and prompts, each with a choice of its own
//! - `choice`: what holds, what is being tried, and when to try again
//! - `rates`: what steps of each size took

mod choice;
mod policy;
mod rates;
#[cfg(test)]
mod tests;
mod window;

pub use policy::ThreadPolicy;
pub use window::{Window, Work};
