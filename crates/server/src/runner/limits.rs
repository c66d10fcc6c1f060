//! What a runner is held to.

use std::time::Duration;

/// What a runner is held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// It says something at least so often: it does once a second, whatever the model does.
    pub silence: Duration,
    /// Text is rendered, read or checked within this time.
    pub text: Duration,
    /// A chat template by itself is rendered within this time.
    pub template: Duration,
    /// Pictures and sounds are decoded within this time.
    pub media: Duration,
    /// A file is planned within this time.
    pub plan: Duration,
    /// A load gets on at least so often.
    pub load: Duration,
    /// So does a model at work: a node is computed, a read lands, a step ends.
    pub step: Duration,
    /// How long it may take to die before those who asked it are told.
    pub dying: Duration,
    /// Bytes that it may take beyond what the budget counts for it: texts, templates, stacks.
    pub slack_bytes: u64,
    /// How long a file is refused that ended its runner twice.
    pub refused: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            text: Duration::from_secs(60),
            template: Duration::from_secs(10),
            media: Duration::from_secs(600),
            plan: Duration::from_secs(60),
            load: Duration::from_secs(300),
            step: Duration::from_secs(300),
            dying: Duration::from_secs(5),
            slack_bytes: 1 << 30,
            refused: Duration::from_secs(120),
        }
    }
}
