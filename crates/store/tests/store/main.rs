//! The model store over folders as other programs leave them, good ones and hostile ones. No model is loaded.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod create;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod projectors;
#[cfg(test)]
mod races;
#[cfg(test)]
mod show;
