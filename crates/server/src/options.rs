//! `options` of a request and `PARAMETER`s of a model file: one table, read leniently, merged request over
//! model file.

use serde_json::{Map, Value};

/// Sampling and limits; `None` is "not said". Every field is named as in Ollama's table.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the table in docs/serving.md")]
pub struct Options {
    pub num_ctx: Option<i64>,
    pub num_predict: Option<i64>,
    pub num_keep: Option<i64>,
    pub draft_num_predict: Option<i64>,
    pub seed: Option<i64>,
    pub temperature: Option<f32>,
    pub top_k: Option<i64>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub repeat_last_n: Option<i64>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub stop: Option<Vec<String>>,
}

/// Options of loading that are checked and then left to the plan: it knows the machine.
const LOADING_INTS: [&str; 4] = ["num_batch", "num_gpu", "main_gpu", "num_thread"];
const LOADING_BOOLS: [&str; 1] = ["use_mmap"];

impl Options {
    /// Reads a JSON object. Unknown keys are ignored, with a note in the log; null is "not said".
    ///
    /// # Errors
    /// A sentence that names the option and the type it must have.
    pub fn of_json(map: &Map<String, Value>) -> Result<Self, String> {
        let mut out = Self::default();
        for (key, value) in map {
            if !value.is_null() {
                out.set(&key.to_ascii_lowercase(), value)?;
            }
        }
        Ok(out)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "num_ctx" => self.num_ctx = int(key, value)?,
            "num_predict" => self.num_predict = int(key, value)?,
            "num_keep" => self.num_keep = int(key, value)?,
            "draft_num_predict" => self.draft_num_predict = int(key, value)?,
            "seed" => self.seed = Some(seed(value).ok_or_else(|| wrong(key, "integer"))?),
            "top_k" => self.top_k = int(key, value)?,
            "repeat_last_n" => self.repeat_last_n = int(key, value)?,
            "temperature" => self.temperature = float(key, value)?,
            "top_p" => self.top_p = float(key, value)?,
            "min_p" => self.min_p = float(key, value)?,
            "typical_p" => self.typical_p = float(key, value)?,
            "repeat_penalty" => self.repeat_penalty = float(key, value)?,
            "presence_penalty" => self.presence_penalty = float(key, value)?,
            "frequency_penalty" => self.frequency_penalty = float(key, value)?,
            "stop" => self.stop = Some(strings(key, value)?),
            _ if LOADING_INTS.contains(&key) => drop(int(key, value)?),
            _ if LOADING_BOOLS.contains(&key) => {
                value.as_bool().ok_or_else(|| wrong(key, "boolean"))?;
            }
            _ => tracing::debug!(option = key, "an option that is not known is ignored"),
        }
        Ok(())
    }

    /// These options, and where they say nothing, those of `base`.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        Self {
            num_ctx: self.num_ctx.or(base.num_ctx),
            num_predict: self.num_predict.or(base.num_predict),
            num_keep: self.num_keep.or(base.num_keep),
            draft_num_predict: self.draft_num_predict.or(base.draft_num_predict),
            seed: self.seed.or(base.seed),
            temperature: self.temperature.or(base.temperature),
            top_k: self.top_k.or(base.top_k),
            top_p: self.top_p.or(base.top_p),
            min_p: self.min_p.or(base.min_p),
            typical_p: self.typical_p.or(base.typical_p),
            repeat_last_n: self.repeat_last_n.or(base.repeat_last_n),
            repeat_penalty: self.repeat_penalty.or(base.repeat_penalty),
            presence_penalty: self.presence_penalty.or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(base.frequency_penalty),
            stop: self.stop.or_else(|| base.stop.clone()),
        }
    }

    /// The asked context, where it is one.
    #[must_use]
    pub fn context(&self) -> Option<u32> {
        self.num_ctx.filter(|count| *count > 0).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Most drafts of a step, where that is said.
    #[must_use]
    pub fn most_drafts(&self) -> Option<u32> {
        self.draft_num_predict
            .filter(|count| *count >= 0)
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether nobody said how long the answer may be.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        self.num_predict.is_none_or(|count| count < 0)
    }

    /// Most tokens of an answer in a context of `context`: what is asked, and never more than ten contexts.
    #[must_use]
    pub fn most_tokens(&self, context: u32) -> u32 {
        let bound = context.saturating_mul(10);
        match self.num_predict {
            Some(count) if count >= 0 => u32::try_from(count).map_or(bound, |count| count.min(bound)),
            _ => bound,
        }
    }
}

/// A seed: any number of 64 bits, with or without a sign.
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "all bits count, whatever their sign")]
pub fn seed(value: &Value) -> Option<i64> {
    /// −1 draws a seed, and the largest number without a sign has the same bits.
    const DRAWN: i64 = -1;
    match value.as_u64() {
        Some(bits) if bits as i64 == DRAWN => Some(DRAWN - 1),
        Some(bits) => Some(bits as i64),
        None => int("seed", value).ok().flatten(),
    }
}

fn wrong(key: &str, kind: &str) -> String {
    format!("option {key:?} must be of type {kind}")
}

/// An integer; a float is cut, as Go's reader of options does.
#[expect(clippy::cast_possible_truncation, reason = "floats saturate, and no option needs 2^63")]
fn int(key: &str, value: &Value) -> Result<Option<i64>, String> {
    let number = value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
    number.map(Some).ok_or_else(|| wrong(key, "integer"))
}

#[expect(clippy::cast_possible_truncation, reason = "samplers compute in f32")]
fn float(key: &str, value: &Value) -> Result<Option<f32>, String> {
    value.as_f64().map(|number| Some(number as f32)).ok_or_else(|| wrong(key, "float32"))
}

/// A list of strings; one string is a list of one.
fn strings(key: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "array")))
            .collect(),
        _ => Err(wrong(key, "array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Options, String> {
        Options::of_json(value.as_object().unwrap())
    }

    #[test]
    fn options_the_request_wins_over_the_model_file() {
        let request = read(json!({"temperature": 0.5, "stop": "x"})).unwrap();
        let file = read(json!({"temperature": 0.1, "top_k": 7, "stop": ["a", "b"]})).unwrap();
        let merged = request.over(&file);
        assert_eq!(merged.temperature, Some(0.5));
        assert_eq!(merged.top_k, Some(7));
        assert_eq!(merged.stop, Some(vec!["x".to_owned()]));
    }

    #[test]
    fn options_integers_may_come_as_floats_and_null_is_not_said() {
        let options = read(json!({"num_ctx": 4096.9, "seed": null, "mirostat": 2, "num_gpu": -1})).unwrap();
        assert_eq!(options.num_ctx, Some(4096));
        assert_eq!(options.seed, None);
    }

    #[test]
    fn a_seed_may_be_any_number_of_64_bits() {
        let seed = |value: Value| read(json!({"seed": value})).unwrap().seed.unwrap();
        assert_eq!((seed(json!(7)), seed(json!(-1)), seed(json!(i64::MIN))), (7, -1, i64::MIN));
        assert_ne!(seed(json!(u64::MAX)), -1);
        assert_ne!(seed(json!(u64::MAX - 5)), seed(json!(u64::MAX - 6)));
        assert!(read(json!({"seed": "x"})).is_err());
    }

    #[test]
    fn options_a_wrong_type_is_named() {
        let cases = [
            (json!({"num_ctx": "big"}), "option \"num_ctx\" must be of type integer"),
            (json!({"temperature": "hot"}), "option \"temperature\" must be of type float32"),
            (json!({"stop": 3}), "option \"stop\" must be of type array"),
            (json!({"stop": [3]}), "option \"stop\" must be of type array"),
            (json!({"use_mmap": 1}), "option \"use_mmap\" must be of type boolean"),
            (json!({"num_thread": []}), "option \"num_thread\" must be of type integer"),
        ];
        for (value, message) in cases {
            assert_eq!(read(value).unwrap_err(), message);
        }
    }

    #[test]
    fn drafts_are_bounded_by_the_request_and_below_zero_is_not_said() {
        let most = |value: Value| read(json!({"draft_num_predict": value})).unwrap().most_drafts();
        assert_eq!([most(json!(0)), most(json!(4)), most(json!(-1))], [Some(0), Some(4), None]);
        assert!(read(json!({"draft_num_predict": "many"})).is_err());
    }

    #[test]
    fn options_absurd_limits_are_bounded() {
        let most = |count: i64| Options { num_predict: Some(count), ..Options::default() }.most_tokens(100);
        assert_eq!(
            (most(-1), most(-2), most(i64::MAX), most(1001), most(7), most(0)),
            (1000, 1000, 1000, 1000, 7, 0)
        );
        assert_eq!(read(json!({"num_ctx": 1e300})).unwrap().context(), Some(u32::MAX));
        assert_eq!(read(json!({"num_ctx": -5})).unwrap().context(), None);
    }
}
