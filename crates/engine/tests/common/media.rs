//! Tiny models that see or hear, and one way to ask them.

use super::{TinyModel, session, tiny};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::load::LoadSettings;
use hypura_engine::media::{MediaPrompt, marker};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::{SamplerOptions, Token};
use std::fs;
use std::path::PathBuf;

/// Each test binary uses its own part of this file; this uses the rest.
const _: fn() = || {
    let _ = (sensing, Sensing::settings, Sensing::session, chat, prompt, forced, run, hash_of);
    let _ = |sensing: Sensing| (sensing.model, sensing.projector);
};

/// A model with a projector.
pub struct Sensing {
    pub model: TinyModel,
    pub projector: PathBuf,
}

pub fn sensing(shape: Shape, projector_file: &[u8]) -> Sensing {
    let model = tiny(shape, Quant::Q4_K, 1);
    let projector = model.path.with_file_name("mmproj.gguf");
    fs::write(&projector, projector_file).unwrap();
    Sensing { model, projector }
}

impl Sensing {
    pub fn settings(&self, settings: LoadSettings) -> LoadSettings {
        settings.with_projector(Some(self.projector.clone()))
    }

    pub fn session(&self, settings: LoadSettings) -> Session {
        session(&self.model.path, self.settings(settings))
    }
}

/// One message; `<picture>` and `<sound>` say where media are.
pub fn chat(text: &str) -> String {
    let content = text.replace("<picture>", marker()).replace("<sound>", marker());
    format!(r#"[{{"role":"user","content":{}}}]"#, serde_json::Value::from(content))
}

pub fn prompt(session: &mut Session, text: &str, media: &[&[u8]]) -> MediaPrompt {
    let rendered = session.render(&chat(text)).unwrap();
    session.tokenize_with_media(&rendered, media).unwrap()
}

pub fn forced(tokens: Vec<Token>) -> GenerateOptions {
    GenerateOptions {
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        hash_logits: true,
        forced: Some(tokens),
        ignore_end: true,
        ..GenerateOptions::default()
    }
}

pub fn run(session: &mut Session, text: &str, media: &[&[u8]]) -> Outcome {
    let prompt = prompt(session, text, media);
    session.generate_after(prompt, &forced(vec![40, 50, 60, 70]), &mut |_| Ok(())).unwrap()
}

/// The hash of all logits of a run over media, and the bytes that it read.
pub fn hash_of(sensing: &Sensing, settings: LoadSettings, media: &[&[u8]]) -> (String, u64) {
    let mut session = sensing.session(settings);
    let text = "here is ".to_owned() + &"<picture> and ".repeat(media.len()) + "say what it is";
    let outcome = run(&mut session, &text, media);
    let read = outcome.prefill_stats.bytes_read + outcome.decode_stats.bytes_read;
    (outcome.logits_hash.unwrap().to_string(), read)
}
