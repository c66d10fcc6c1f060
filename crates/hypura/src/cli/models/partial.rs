//! Downloads that are not whole, as `hypura list` tells of them.

use std::collections::BTreeMap;

use hypura_core::plan::human_bytes;
use hypura_store::Partial;
use serde_json::Value;

/// What is told of a file that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartialFile {
    model: String,
    bytes: u64,
    have_bytes: u64,
    busy: bool,
    is_of_url: bool,
}

impl From<&Partial> for PartialFile {
    fn from(partial: &Partial) -> Self {
        let Partial { model, bytes, have_bytes, busy, is_of_url, .. } = partial;
        Self {
            model: model.clone(),
            bytes: *bytes,
            have_bytes: *have_bytes,
            busy: *busy,
            is_of_url: *is_of_url,
        }
    }
}

impl PartialFile {
    /// Those that a server tells of in its answer to `/api/tags`.
    pub fn of_tags(answer: &Value) -> Vec<Self> {
        let file = |file: &Value| {
            Some(Self {
                model: file["model"].as_str()?.to_owned(),
                bytes: file["size"].as_u64()?,
                have_bytes: file["completed"].as_u64()?,
                busy: file["busy"].as_bool().unwrap_or(false),
                is_of_url: file["from_url"].as_bool().unwrap_or(false),
            })
        };
        answer["hypura"]["partial"].as_array().into_iter().flatten().filter_map(file).collect()
    }
}

/// A line for each model.
pub(super) fn told(partials: &[PartialFile]) -> String {
    let mut models: BTreeMap<(&str, bool), (u64, u64, bool)> = BTreeMap::new();
    for partial in partials {
        let (have, bytes, busy) = models.entry((&partial.model, partial.is_of_url)).or_default();
        *have += partial.have_bytes;
        *bytes += partial.bytes;
        *busy |= partial.busy;
    }
    let mut text = String::new();
    for ((model, is_of_url), (have, bytes, busy)) in models {
        let what = match (busy, is_of_url) {
            (true, _) => "it is being pulled".to_owned(),
            (false, true) => format!("`hypura pull` with its URL continues, `hypura rm {model}` drops it"),
            (false, false) => format!("`hypura pull {model}` continues, `hypura rm {model}` drops it"),
        };
        text.push_str(&format!(
            "partial: {model}: {} of {}; {what}\n",
            human_bytes(have),
            human_bytes(bytes)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_a_model_are_told_in_one_line() {
        let file = |file: &str, busy| json!({"model": "hf.co/o/r:Q8_0", "file": file, "size": 2 << 20, "completed": 1 << 20, "busy": busy});
        let idle = json!({"models": [], "hypura": {"partial": [file("a", false), file("b", false)]}});
        let told_of = |answer: &Value| told(&PartialFile::of_tags(answer));
        assert_eq!(
            told_of(&idle),
            "partial: hf.co/o/r:Q8_0: 2.00 MiB of 4.00 MiB; `hypura pull hf.co/o/r:Q8_0` continues, `hypura rm \
             hf.co/o/r:Q8_0` drops it\n"
        );
        let mut url = file("a", false);
        url["from_url"] = true.into();
        let line = told_of(&json!({"hypura": {"partial": [url]}}));
        assert!(line.contains("`hypura pull` with its URL continues, `hypura rm hf.co/o/r:Q8_0`"), "{line}");
        let busy = json!({"hypura": {"partial": [file("a", false), file("b", true)]}});
        assert!(told_of(&busy).ends_with("; it is being pulled\n"));
        assert_eq!(told_of(&json!({"models": []})), "");
    }
}
