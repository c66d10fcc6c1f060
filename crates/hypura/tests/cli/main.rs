//! The program as people run it: exit codes, messages, files, and the same bits whatever the flags.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod exact;
#[cfg(test)]
mod go_templates;
#[cfg(test)]
mod images;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod models;
#[cfg(test)]
mod output;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod runners;
#[cfg(test)]
mod served;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod sounds;
#[cfg(test)]
mod synth;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod trace;
mod watching;
#[cfg(test)]
mod workers;
#[cfg(test)]
mod worth;
