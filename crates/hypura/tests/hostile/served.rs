//! Files through a server: uploaded, made a model, asked, deleted, as any client may do.

use hypura_store::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::kit::{demo, hypura};
use crate::order::File;
use crate::run::own_bytes;
use crate::tally::Outcome;

/// Longer than any answer takes, the ends of its runners included.
const DEADLINE: Duration = Duration::from_secs(90);
/// Files above that are `run`'s alone.
const MOST_UPLOAD_BYTES: u64 = 64 << 20;
/// What the server itself may have.
const MOST_BYTES: u64 = 512 << 20;

pub struct Server {
    home: TempDir,
    address: String,
    child: Mutex<Child>,
}

impl Server {
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = hypura();
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("OLLAMA_") || name.starts_with("HF_"))
        {
            command.env_remove(name);
        }
        command.env("HOME", home.path()).env("HYPURA_MODELS", home.path().join("own"));
        command.env("HYPURA_DEMO", demo()).env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME");
        command.args([
            "serve",
            "--port",
            "0",
            "--memory",
            "512MiB",
            "--threads",
            "2",
            "--runner-deadline",
            "10",
        ]);
        command.env("OLLAMA_LOAD_TIMEOUT", "30s");
        let log = fs::File::create(home.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
        Self { home, address, child: Mutex::new(child) }
    }

    /// Status and text; what goes wrong on the way is a fault.
    fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Result<(u16, String), String> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE));
        let request = http(method, &format!("http://{}{path}", self.address), body);
        let mut answer =
            config.build().new_agent().run(request).map_err(|error| format!("{path}: {error}"))?;
        let text = answer.body_mut().read_to_string().map_err(|error| format!("{path}: {error}"))?;
        Ok((answer.status().as_u16(), text))
    }

    fn post(&self, path: &str, body: &Value) -> Result<(u16, String), String> {
        self.send("POST", path, body.to_string().into_bytes())
    }

    pub fn one(&self, file: &File<'_>) -> Outcome {
        if file.paths.iter().any(|path| path.metadata().unwrap().len() > MOST_UPLOAD_BYTES) {
            return Outcome::Refused("too large to upload".to_owned());
        }
        self.ask(file).unwrap_or_else(Outcome::Fault)
    }

    fn ask(&self, file: &File<'_>) -> Result<Outcome, String> {
        let name = format!("h{}", file.index);
        let mut files = serde_json::Map::new();
        for path in file.paths {
            let bytes = fs::read(path).unwrap();
            let digest = Digest::of(&bytes).to_string();
            self.send("POST", &format!("/api/blobs/{digest}"), bytes)?;
            files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), digest.into());
        }
        let made = self.post("/api/create", &json!({"model": name, "files": files, "stream": false}))?;
        if made.0 != 200 {
            return judged(&made);
        }
        let options = json!({"num_predict": 3, "temperature": 0});
        let prompt = "What is a lynx?";
        let messages = json!([{"role": "user", "content": prompt}]);
        self.post("/api/show", &json!({"model": name}))?;
        let chat = json!({"model": name, "messages": messages, "options": options, "stream": false});
        let mut answer = self.post("/api/chat", &chat)?;
        let mut outcome = judged(&answer)?;
        for (path, body) in [
            (
                "/api/generate",
                json!({"model": name, "prompt": prompt, "raw": true, "options": options, "stream": false}),
            ),
            ("/api/embed", json!({"model": name, "input": [prompt, "x"]})),
        ] {
            answer = self.post(path, &body)?;
            if let (Outcome::Answered, other) = (&outcome, judged(&answer)?) {
                outcome = other;
            }
        }
        self.post("/api/generate", &json!({"model": name, "keep_alive": 0}))?;
        self.send("DELETE", "/api/delete", json!({"model": name}).to_string().into_bytes())?;
        self.still_there()?;
        Ok(outcome)
    }

    fn still_there(&self) -> Result<(), String> {
        let mut child = self.child.lock().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            return Err(format!("the server ended: {status}"));
        }
        let bytes = own_bytes(&format!("/proc/{}/status", child.id()));
        if bytes > MOST_BYTES {
            return Err(format!("the server has {} MiB", bytes >> 20));
        }
        drop(child);
        let start = Instant::now();
        self.send("GET", "/api/version", Vec::new())?;
        if start.elapsed() > Duration::from_secs(5) {
            return Err(format!("/api/version took {:?}", start.elapsed()));
        }
        Ok(())
    }

    /// Others are served as before, and nothing of the files is left.
    pub fn finish(self) {
        let ask = json!({"model": "demo", "prompt": "x", "options": {"num_predict": 3}, "stream": false});
        let answer = self.post("/api/generate", &ask).unwrap();
        assert_eq!(answer.0, 200, "{answer:?}");
        let (_, models) = self.send("GET", "/api/ps", Vec::new()).unwrap();
        let models: Value = serde_json::from_str(&models).unwrap();
        assert_eq!(models["models"].as_array().unwrap().len(), 1, "only the demo is loaded: {models}");
        let log = fs::read_to_string(self.home.path().join("log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        let mut child = self.child.into_inner().unwrap();
        crate::kit::terminate(&child);
        assert_eq!(crate::kit::wait(&mut child), Some(0));
    }
}

fn http(method: &str, url: &str, body: Vec<u8>) -> ureq::http::Request<Vec<u8>> {
    ureq::http::Request::builder().method(method).uri(url).body(body).unwrap()
}

fn judged((status, text): &(u16, String)) -> Result<Outcome, String> {
    let is_failure = *status == 200 && text.trim_start().starts_with("{\"error\"");
    match status {
        200 if !is_failure => Ok(Outcome::Answered),
        200 | 400 | 404 | 500 | 503 | 507 if text.contains("\"error\"") => {
            Ok(Outcome::Refused(format!("{status}: {text}")))
        }
        _ => Err(format!("status {status}: {text}")),
    }
}
