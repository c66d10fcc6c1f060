//! Flags that say how tokens are chosen.

use hypura_engine::SamplerOptions;
use serde_json::{Map, Value};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// How tokens are chosen. The defaults are the engine's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SamplingFlags {
    /// How daring: 0 always takes the likeliest token [default: 0.8]
    #[arg(long, value_name = "T", value_parser = at_least_zero, help_heading = "Sampling")]
    temperature: Option<f32>,

    /// Choose among the K likeliest tokens; 0: among all [default: 40]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(i32).range(0..), help_heading = "Sampling")]
    top_k: Option<i32>,

    /// Choose among the likeliest tokens that together reach this probability [default: 0.9]
    #[arg(long, value_name = "P", value_parser = probability, help_heading = "Sampling")]
    top_p: Option<f32>,

    /// Drop tokens less likely than this fraction of the likeliest [default: 0]
    #[arg(long, value_name = "P", value_parser = probability, help_heading = "Sampling")]
    min_p: Option<f32>,

    /// Make recent tokens less likely; 1 is off [default: 1]
    #[arg(long, value_name = "X", value_parser = above_zero, help_heading = "Sampling")]
    repeat_penalty: Option<f32>,

    /// The same seed makes the same choices [default: random, shown by --verbose]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    seed: Option<u32>,
}

impl SamplingFlags {
    /// What was `set` in a conversation, then the flags, then the model's own parameters, then the defaults.
    #[must_use]
    pub fn options(&self, parameters: &Map<String, Value>, set: &Map<String, Value>) -> SamplerOptions {
        let default = SamplerOptions::default();
        let mut all = parameters.clone();
        all.extend(self.api_options());
        all.extend(set.clone());
        let float = |key: &str, default: f32| {
            all.get(key).and_then(Value::as_f64).map_or(default, |number| number as f32)
        };
        let whole = |key: &str| all.get(key).and_then(Value::as_f64).map(|number| number as i64);
        let small = |key: &str, default: i32| {
            whole(key).and_then(|number| i32::try_from(number).ok()).unwrap_or(default)
        };
        SamplerOptions {
            temperature: float("temperature", default.temperature),
            top_k: small("top_k", default.top_k),
            top_p: float("top_p", default.top_p),
            min_p: float("min_p", default.min_p),
            typical_p: float("typical_p", default.typical_p),
            repeat_penalty: float("repeat_penalty", default.repeat_penalty),
            repeat_last: small("repeat_last_n", default.repeat_last),
            frequency_penalty: float("frequency_penalty", default.frequency_penalty),
            presence_penalty: float("presence_penalty", default.presence_penalty),
            seed: whole("seed").and_then(|number| u32::try_from(number).ok()).unwrap_or_else(random_seed),
        }
    }

    /// The flags that were given, in the words of the API.
    #[must_use]
    pub fn api_options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                options.insert(key.to_owned(), value);
            }
        };
        put("temperature", self.temperature.map(Value::from));
        put("top_k", self.top_k.map(Value::from));
        put("top_p", self.top_p.map(Value::from));
        put("min_p", self.min_p.map(Value::from));
        put("repeat_penalty", self.repeat_penalty.map(Value::from));
        put("seed", self.seed.map(Value::from));
        options
    }
}

/// The standard library's hash keys are random for each process; no more is needed of a seed.
fn random_seed() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn number(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("it is no number".to_owned()),
    }
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| if n >= 0.0 { Ok(n) } else { Err("it must be 0 or more".to_owned()) })
}

fn above_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| if n > 0.0 { Ok(n) } else { Err("it must be more than 0".to_owned()) })
}

fn probability(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| {
        if (0.0..=1.0).contains(&n) { Ok(n) } else { Err("it must be between 0 and 1".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (parse, bad) in [
            (at_least_zero as fn(&str) -> _, "-0.1"),
            (at_least_zero, "NaN"),
            (at_least_zero, "inf"),
            (above_zero, "0"),
            (probability, "1.01"),
            (probability, "x"),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(probability("1"), Ok(1.0));
    }

    #[test]
    fn flags_count_before_what_the_model_brings() {
        let args = SamplingFlags { temperature: Some(0.0), ..SamplingFlags::default() };
        let parameters = serde_json::json!({"temperature": 0.7, "top_k": 7.0, "seed": 42, "stop": ["x"]});
        let options = args.options(parameters.as_object().unwrap(), &Map::new());
        assert_eq!((options.temperature, options.top_k, options.seed), (0.0, 7, 42));
        assert_eq!(options.top_p, SamplerOptions::default().top_p);
        assert_eq!(Value::Object(args.api_options()), serde_json::json!({"temperature": 0.0}));
    }

    #[test]
    fn what_a_conversation_sets_counts_before_flags() {
        let args = SamplingFlags { temperature: Some(0.0), ..SamplingFlags::default() };
        let parameters = serde_json::json!({"presence_penalty": 0.5, "repeat_last_n": -1, "typical_p": 0.9});
        let set = serde_json::json!({"temperature": 0.3, "frequency_penalty": 1});
        let options = args.options(parameters.as_object().unwrap(), set.as_object().unwrap());
        assert_eq!((options.temperature, options.frequency_penalty), (0.3, 1.0));
        assert_eq!((options.presence_penalty, options.repeat_last, options.typical_p), (0.5, -1, 0.9));
    }
}
