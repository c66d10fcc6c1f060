//! What flags depend on besides what was typed: variables and the machine. Tests bring their own.

use hypura_engine::load::default_threads;
use hypura_engine::machine::{self, Memory};

use hypura_server::address::stripped;

/// The value of a variable, by its name.
type Variables = Box<dyn Fn(&str) -> Option<String>>;
/// The memory of the machine, looked at when it is asked for.
type Machine = Box<dyn Fn() -> anyhow::Result<Memory>>;

/// Variables and machine.
pub struct Env {
    variable: Variables,
    memory: Machine,
    /// Processors that this process may use.
    pub processors: u32,
}

impl Env {
    /// Those of this process. Memory is looked at when it is asked for.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            variable: Box::new(|name| std::env::var(name).ok()),
            memory: Box::new(|| Ok(machine::memory_available()?)),
            processors: default_threads(),
        }
    }

    /// A variable without the quotes and blanks around it; empty is unset.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let value = (self.variable)(name)?;
        Some(stripped(&value).to_owned()).filter(|value| !value.is_empty())
    }

    /// The memory of the machine, and what of it is free.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        (self.memory)()
    }

    /// A machine with 2 processors and 64 GiB, of which 40 are free.
    #[cfg(test)]
    pub fn for_tests(variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let value = move |name: &str| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let memory = || Ok(Memory { total_bytes: 64 << 30, available_bytes: 40 << 30, limit: None });
        Self { variable: Box::new(value), memory: Box::new(memory), processors: 2 }
    }
}
