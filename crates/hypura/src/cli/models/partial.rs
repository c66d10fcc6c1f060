//! Downloads that are not whole, as `hypura list` tells of them.

use std::collections::BTreeMap;

use hypura_core::plan::human_bytes;
use hypura_store::Partial;

/// A line for each model.
pub(super) fn told(partials: &[Partial]) -> String {
    let mut models: BTreeMap<&str, (u64, u64, bool)> = BTreeMap::new();
    for partial in partials {
        let (have, bytes, busy) = models.entry(&partial.model).or_default();
        *have += partial.have_bytes;
        *bytes += partial.bytes;
        *busy |= partial.busy;
    }
    let mut text = String::new();
    for (model, (have, bytes, busy)) in models {
        let what = match busy {
            true => "it is being pulled".to_owned(),
            false => format!("`hypura pull {model}` continues, `hypura rm {model}` drops it"),
        };
        text.push_str(&format!(
            "partial: {model}: {} of {}; {what}\n",
            human_bytes(have),
            human_bytes(bytes)
        ));
    }
    text
}
