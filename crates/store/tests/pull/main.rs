//! Models arrive from servers that behave as the real ones do, good ones and failing ones.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod names;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod server;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod space;
