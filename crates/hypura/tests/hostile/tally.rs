//! What became of the files.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// What became of one file.
pub enum Outcome {
    /// It answered.
    Answered,
    /// It was refused, or failed, with these words.
    Refused(String),
    /// What must not be.
    Fault(String),
}

#[derive(Default)]
pub struct Tally {
    answered: Mutex<u64>,
    /// By kind: how many, and the first with what was done to it.
    refused: Mutex<BTreeMap<String, (u64, String)>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    pub fn note(&self, seed: u64, index: u64, told: &[String], outcome: Outcome) {
        match outcome {
            Outcome::Answered => *self.answered.lock().unwrap() += 1,
            Outcome::Refused(words) => {
                let mut refused = self.refused.lock().unwrap();
                let first = || (0, format!("file {index}: {}", told.join("; ")));
                refused.entry(kind(&words)).or_insert_with(first).0 += 1;
            }
            Outcome::Fault(what) => {
                let fault = format!("seed {seed}, file {index} ({}): {what}", told.join("; "));
                eprintln!("FAULT: {fault}");
                self.faults.lock().unwrap().push(fault);
            }
        }
    }

    /// Tells what was, and fails where something was that must not be.
    pub fn finish(self, what: &str) {
        let refused = self.refused.into_inner().unwrap();
        let count: u64 = refused.values().map(|(count, _)| count).sum();
        println!("{what}: {} answered, {count} refused", self.answered.into_inner().unwrap());
        let mut kinds: Vec<_> = refused.into_iter().collect();
        kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (words, (count, first)) in kinds {
            println!("{count:6}  {words}  ({first})");
        }
        let faults = self.faults.into_inner().unwrap();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }
}

/// Words without what differs from file to file.
fn kind(words: &str) -> String {
    let words = words.split_whitespace().map(|word| match word {
        word if word.contains(".gguf") || word.contains('"') => "…",
        word => word,
    });
    let line = words.collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let line = line.split("00").collect::<String>();
    line.chars().take(150).collect()
}
