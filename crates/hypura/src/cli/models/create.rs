//! `hypura create`: a new model from a Modelfile.
//!
//! A file that `FROM` names is linked into the store of this machine. A server that has another store gets
//! the file sent.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::home;
use crate::cli::style::progress_bar;
use crate::client::Client;
use hypura_server::ollama::OLLAMA_VERSION;
use hypura_store::{CreateRequest, Digest, Modelfile, Progress, Store, shards_of};

/// Arguments of `hypura create`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the new model
    model: String,

    /// The Modelfile
    #[arg(short, long, default_value = "Modelfile", value_name = "FILE")]
    file: PathBuf,

    /// Quantize the weights, which must be F16, BF16 or F32: Q4_K_M, Q8_0, …
    #[arg(short, long, value_name = "TYPE")]
    quantize: Option<String>,
}

/// Makes it.
///
/// # Errors
/// What is wrong with the Modelfile or the model that it names.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let path = &args.file;
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let modelfile =
        Modelfile::parse(&Modelfile::decode(&text)).with_context(|| format!("{}", path.display()))?;
    let request = request(&args.model, modelfile, path.parent().unwrap_or(Path::new("")))?;
    let request = CreateRequest { quantize: args.quantize.clone(), ..request };
    match Client::find() {
        None => create_here(&request)?,
        Some(client) if request.file.is_none() && request.draft_file.is_none() => {
            create_there(&client, &request)?
        }
        Some(client) => create_from_file(&client, &request)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the Modelfile asks for. `FROM` names a file if there is one, beside the Modelfile, otherwise a model.
fn request(name: &str, modelfile: Modelfile, folder: &Path) -> anyhow::Result<CreateRequest> {
    if !modelfile.adapters.is_empty() {
        bail!("adapters are not supported: merge the adapter into the model first");
    }
    for warning in warnings(&modelfile) {
        eprintln!("warning: {warning}");
    }
    let path = folder.join(home::expanded(&modelfile.from));
    let is_path = modelfile.from.ends_with(".gguf") || modelfile.from.starts_with(['.', '/', '~']);
    let file = (path.is_file() || is_path).then_some(path);
    let draft_file = modelfile.draft.as_deref().map(|draft| draft_file(draft, folder)).transpose()?;
    Ok(CreateRequest {
        model: Some(name.to_owned()),
        from: Some(modelfile.from).filter(|_| file.is_none()),
        file,
        draft_file,
        ..CreateRequest::with_settings(modelfile.settings)
    })
}

/// The file of a draft model: one beside the Modelfile, or that of a model.
fn draft_file(draft: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(home::expanded(draft));
    if path.is_file() || draft.ends_with(".gguf") || draft.starts_with(['.', '/', '~']) {
        return Ok(path);
    }
    let entry = Store::of_environment().resolve(draft).with_context(|| format!("DRAFT {draft}"))?;
    match entry.files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("DRAFT {draft}: a draft model is one file, and this one has several"),
    }
}

/// What is read and kept, or left out, and changes nothing.
fn warnings(modelfile: &Modelfile) -> Vec<String> {
    let settings = &modelfile.settings;
    let go = settings.renderer.as_ref().or(settings.parser.as_ref());
    let go = go.map(|name| {
        format!(
            "RENDERER and PARSER ({name}) are kept and shown; the chat template of the GGUF is used instead"
        )
    });
    let requires = settings.requires.as_ref().filter(|version| is_newer(version, OLLAMA_VERSION));
    let requires = requires.map(|version| {
        format!("REQUIRES {version} is kept: this program speaks the protocol of Ollama {OLLAMA_VERSION}")
    });
    go.into_iter().chain(requires).collect()
}

/// Whether version `a` comes after `b`; of what is no version nothing is known.
fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.trim_start_matches('v').split(['.', '-']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(a) > numbers(b)
}

/// Makes it in the store of this machine.
///
/// # Errors
/// What is wrong with the request.
pub(in crate::cli) fn create_here(request: &CreateRequest) -> anyhow::Result<()> {
    let bar = progress_bar("hashing");
    let quantizer = hypura_server::ProcessQuantizer;
    let store = Store::of_environment();
    store.create_with(request, Some(&quantizer), &mut |progress: Progress| match (
        progress.completed,
        progress.total,
    ) {
        (Some(done), Some(total)) => bar.set(done, total),
        _ => eprintln!("{}", progress.status),
    })?;
    Ok(())
}

fn create_there(client: &Client, request: &CreateRequest) -> anyhow::Result<()> {
    let mut answer = client.stream("/api/create", &serde_json::to_value(request)?)?;
    while let Some(piece) = answer.next(&|| false)? {
        if let Some(status) = piece["status"].as_str() {
            eprintln!("{status}");
        }
    }
    Ok(())
}

/// With a server of this machine the store is shared as a rule, and a link is enough.
fn create_from_file(client: &Client, request: &CreateRequest) -> anyhow::Result<()> {
    let name = request.model.as_deref().unwrap_or_default();
    if client.is_local() {
        create_here(request)?;
        let digest = Store::of_environment().resolve(name)?.digest;
        let tags = client.get("/api/tags")?;
        if tags["models"].as_array().into_iter().flatten().any(|model| model["digest"] == digest) {
            return Ok(());
        }
        Store::of_environment().delete(name)?;
    }
    let sent = |files: Vec<PathBuf>| -> anyhow::Result<BTreeMap<String, String>> {
        let shown = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned());
        files.iter().map(|file| Ok((shown(file).unwrap_or_default(), send(client, file)?))).collect()
    };
    let mut there = CreateRequest { file: None, draft_file: None, ..request.clone() };
    if let Some(file) = &request.file {
        let files = shards_of(file).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        there.files = Some(sent(files)?);
    }
    if let Some(file) = &request.draft_file {
        there.draft_files = Some(sent(vec![file.clone()])?);
    }
    create_there(client, &there)
}

fn send(client: &Client, file: &Path) -> anyhow::Result<String> {
    let reading = || format!("cannot read {}", file.display());
    let total = fs::metadata(file).with_context(reading)?.len();
    let bar = progress_bar("hashing");
    let digest = Digest::of_file(file, &mut |done| bar.set(done, total)).with_context(reading)?;
    let path = format!("/api/blobs/{digest}");
    if !client.has(&path)? {
        eprintln!("sending {}", file.display());
        client.send_file(&path, File::open(file).with_context(reading)?)?;
    }
    Ok(digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(text: &str, folder: &Path) -> CreateRequest {
        request("x", Modelfile::parse(text).unwrap(), folder).unwrap()
    }

    #[test]
    fn from_is_a_file_beside_the_modelfile_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights"), "").unwrap();
        assert_eq!(of("FROM weights", folder.path()).file, Some(folder.path().join("weights")));
        assert_eq!(of("FROM ./absent.gguf", folder.path()).file, Some(folder.path().join("./absent.gguf")));
        let named = of("FROM llama3.2\nSYSTEM hi", folder.path());
        assert_eq!((named.from.as_deref(), named.file), (Some("llama3.2"), None));
    }

    #[test]
    fn what_changes_nothing_is_told() {
        let of = |text: &str| warnings(&Modelfile::parse(text).unwrap());
        let all = of("FROM a\nRENDERER qwen3\nPARSER qwen3\nREQUIRES 99.1.0");
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("qwen3") && all[1].contains("99.1.0"));
        assert!(of("FROM a\nREQUIRES 0.20.0").is_empty());
        assert!(is_newer("0.34", "0.33.0") && !is_newer("0.9.1", "0.33.0") && !is_newer("x", "0.33.0"));
    }

    #[test]
    fn only_what_is_said_is_sent() {
        let body: Value = serde_json::to_value(of("FROM a\nPARAMETER top_k 1", Path::new(""))).unwrap();
        assert_eq!(body, json!({"model": "x", "from": "a", "parameters": {"top_k": 1}}));
    }
}
