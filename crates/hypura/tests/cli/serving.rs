//! `hypura serve` as services run it: what it remembers, what it reads from the environment, and how it ends.

use hypura_core::synth::Shape;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::kit::{demo, finish, hypura, interrupt, model, stats, terminate, wait};

/// Variables that would change what a test sees.
const VARIABLES: [&str; 14] = [
    "OLLAMA_MODELS",
    "OLLAMA_HOST",
    "OLLAMA_ORIGINS",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_LOAD_TIMEOUT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
];

fn serve_command(home: &Path) -> Command {
    let mut command = hypura();
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.env("HOME", home).env("HYPURA_MODELS", home.join("own")).env("HYPURA_DEMO", demo()).arg("serve");
    command
}

/// A server that ends with its test.
pub struct Serving {
    home: TempDir,
    pub address: String,
    pub child: Child,
}

impl Serving {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = serve_command(home.path());
        if !arguments.contains(&"--port") && !variables.iter().any(|(name, _)| *name == "OLLAMA_HOST") {
            command.args(["--port", "0"]);
        }
        if !arguments.contains(&"--memory") {
            command.args(["--memory", "1GiB"]);
        }
        command.args(arguments).envs(variables.iter().copied()).env("NO_COLOR", "1");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { home, address, child }
    }

    pub fn send(&self, path: &str, body: &Value) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let url = format!("http://{}{path}", self.address);
        let mut answer = agent.post(url).send(body.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, text) = self.send(path, body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    pub fn text(&self, path: &str) -> String {
        let mut answer = ureq::get(format!("http://{}{path}", self.address)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// A turn of a chat; adds the answer to it. Tokens of the prompt, and how many of them were in the cache.
    fn turn(&self, messages: &mut Vec<Value>, question: &str) -> (u64, u64) {
        messages.push(json!({"role": "user", "content": question}));
        let options = json!({"temperature": 0, "num_predict": 40});
        let ask = json!({"model": "demo", "messages": messages, "stream": false, "options": options});
        let answer = self.post("/api/chat", &ask);
        messages.push(answer["message"].clone());
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        (count("prompt_eval_count"), count("prompt_eval_cached"))
    }

    /// Lines of the log that say all of this, once there are any.
    pub fn logged(&self, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap();
            if let Some(line) = log.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{parts:?} is not in {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Begins a streamed answer, and returns when its first piece is there.
    pub fn begin(&self, tokens: u32) -> BufReader<std::net::TcpStream> {
        let options = json!({"num_predict": tokens, "temperature": 0});
        self.begin_with(&json!({"model": "demo", "prompt": "What is a lynx?", "options": options}))
    }

    /// The same for any request for a text.
    pub fn begin_with(&self, body: &Value) -> BufReader<std::net::TcpStream> {
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let head = format!("POST /api/generate HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.contains("\"response\"") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "no piece came");
        }
        reader
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            interrupt(&self.child);
            wait(&mut self.child);
        }
    }
}

/// The request of each protocol for an answer with a schema, and where the answer is.
fn with_schema(schema: &Value) -> [(&'static str, Value, &'static str); 5] {
    let messages = json!([{"role": "user", "content": "What is a lynx?"}]);
    let named = json!({"type": "json_schema", "name": "n", "schema": schema});
    let openai = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    // White space between values is bounded, and so is the longest answer.
    let options = json!({"num_predict": 600});
    [
        (
            "/api/chat",
            json!({"messages": messages, "format": schema, "options": options, "stream": false}),
            "/message/content",
        ),
        (
            "/api/generate",
            json!({"prompt": "A lynx", "raw": true, "format": schema, "options": options, "stream": false}),
            "/response",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "response_format": openai, "max_tokens": 600}),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({"input": "What is a lynx?", "text": {"format": named}, "max_output_tokens": 600}),
            "/output/0/content/0/text",
        ),
        (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 600, "output_config": {"format": named}}),
            "/content/0/text",
        ),
    ]
}

/// What a schema asked for was dropped in part, without a word and with status 200.
#[test]
fn an_answer_fits_its_schema_or_the_request_is_refused_with_the_place() {
    let server = Serving::start(&[]);
    let send = |path: &str, mut body: Value| {
        body["model"] = "demo".into();
        server.send(path, &body)
    };
    let properties = json!({
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 3, "maximum": 5},
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    });
    let schema = json!({"type": "object", "properties": properties, "required": ["kind", "age", "code"]});
    for (path, body, place) in with_schema(&schema) {
        let (status, text) = send(path, body);
        assert_eq!(status, 200, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let said = answer.pointer(place).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {text}"));
        let value: Value = serde_json::from_str(said).unwrap_or_else(|_| panic!("{path}: {said}"));
        assert!(["cat", "dog"].iter().any(|kind| value["kind"] == *kind), "{path}: {said}");
        assert!((3..=5).contains(&value["age"].as_u64().unwrap()), "{path}: {said}");
        assert_eq!(value["code"].as_str().unwrap().len(), 5, "{path}: {said}");
    }
    for (schema, place) in [
        (json!({"properties": {"age": {"not": {"pattern": "x"}}}}), "`not` cannot be enforced"),
        (json!({"properties": {"age": {"minimum": 5, "maximum": 3}}}), "minimum 5 is above maximum 3"),
    ] {
        for (path, body, _) in with_schema(&schema) {
            let (status, text) = send(path, body);
            assert_eq!(status, 400, "{path}: {text}");
            assert!(text.contains("properties.age") && text.contains(place), "{path}: {text}");
        }
    }
}

/// What a program is asked for is what another one shows: the default context was a number in each of them.
#[test]
fn without_a_context_plan_run_and_serve_choose_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Shape::TinyMixtral, 1);
    let file = path.to_str().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let key = b"llama.context_length";
    let value = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[value..value + 4].copy_from_slice(&65_536_u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let mut chosen = Vec::new();
    for memory in ["2GiB", "200MiB", "90MiB"] {
        // A server computes prompts in pieces of 512 tokens, whatever the memory.
        let flags = ["--memory", memory, "--ubatch", "512"];
        let plan = finish(hypura().args(["plan", file, "--json"]).args(flags)).assert_success();
        let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
        let planned = plan["plan"]["context_tokens"].as_u64().unwrap();
        let ran = stats(&path, &[&flags[..], &["-n", "1"]].concat(), "x");
        assert_eq!(ran["context"], planned, "{memory}");
        let server = Serving::start(&[file, "--memory", memory]);
        let name = path.file_stem().unwrap().to_str();
        server.post("/api/generate", &json!({"model": name, "prompt": "", "stream": false}));
        assert_eq!(server.get("/api/ps")["models"][0]["context_length"], planned, "{memory}");
        chosen.push(planned);
    }
    assert_eq!(chosen[0], 65_536, "{chosen:?}");
    assert!((4096..65_536).contains(&chosen[2]) && chosen.is_sorted_by(|a, b| a >= b), "{chosen:?}");
}

#[test]
fn two_chats_in_turn_both_find_their_first_turn_in_the_cache() {
    let server = Serving::start(&[]);
    let (mut cats, mut rust) = (Vec::new(), Vec::new());
    let (first, _) = server.turn(&mut cats, "What is a lynx? Tell me what it eats and where it lives.");
    let (other, _) = server.turn(&mut rust, "What is a trait in Rust, and what is it good for?");
    // Nor do embeddings of the same model make it forget.
    let ask = json!({"model": "demo", "input": ["wild cats", "borrowed references", "threads"]});
    let (status, text) = server.send("/api/embed", &ask);
    assert!(status == 200 || text.contains("does not support"), "{text}");
    for (chat, before) in [(&mut cats, first), (&mut rust, other)] {
        let (prompt, cached) = server.turn(chat, "And then?");
        assert!(prompt > before && cached + 2 >= before, "{cached} of {prompt}, after {before}");
    }
    // What is remembered takes nothing beyond the one context.
    let ps = server.get("/api/ps");
    assert_eq!(ps["models"][0]["context_length"], 1024, "the length of its training: {ps}");
}

#[test]
fn what_was_said_before_a_restart_is_in_the_cache_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--kv-cache-dir", folder.path().to_str().unwrap()];
    let mut chat = Vec::new();
    let question =
        "What is a lynx? Tell me what it eats, where it lives, and what it does all day. ".repeat(4);
    let first = {
        let mut server = Serving::start(&flags);
        let (first, cached) = server.turn(&mut chat, &question);
        assert_eq!(cached, 0);
        terminate(&server.child);
        assert_eq!(wait(&mut server.child), Some(0));
        first
    };
    assert!(first > 64, "{first}");
    let server = Serving::start(&flags);
    let (prompt, cached) = server.turn(&mut chat, "And then?");
    assert!(cached + 2 >= first && cached < prompt, "{cached} of {prompt}");
}

#[test]
fn the_least_recently_used_of_two_real_models_leaves_when_memory_is_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let other = model(folder.path(), Shape::TinyLlama, 1);
    let name = other.file_stem().unwrap().to_str().unwrap().to_owned();
    let other = other.to_str().unwrap().to_owned();
    let load = |server: &Serving, name: &str| {
        server.post("/api/generate", &json!({"model": name, "prompt": "", "keep_alive": -1}));
    };
    let loaded = |server: &Serving| -> Vec<(String, u64)> {
        let models = server.get("/api/ps")["models"].as_array().unwrap().clone();
        let about =
            |model: &Value| (model["name"].as_str().unwrap().to_owned(), model["size"].as_u64().unwrap());
        models.iter().map(about).collect()
    };
    let roomy = Serving::start(&[&other]);
    for name in ["demo", &name] {
        load(&roomy, name);
    }
    let both = loaded(&roomy);
    assert_eq!(both.len(), 2, "{both:?}");
    drop(roomy);
    let sum: u64 = both.iter().map(|(_, size)| size).sum();
    let largest = both.iter().map(|(_, size)| *size).max().unwrap();
    let budget = (largest + (4 << 20)).min(sum - (4 << 20));
    let tight = Serving::start(&[&other, "--memory", &budget.to_string()]);
    for name in ["demo", &name, "demo"] {
        load(&tight, name);
        let now = loaded(&tight);
        assert!(now.len() == 1 && now[0].0.starts_with(name), "{now:?} after {name}");
        assert!(now[0].1 <= budget, "{now:?} in {budget}");
    }
}

#[test]
fn sigterm_lets_an_answer_end_and_then_stops() {
    let mut server = Serving::start(&[]);
    let mut answer = server.begin(300);
    terminate(&server.child);
    server.logged(&["stopping after the requests"]);
    // The line comes first; the port is closed without waiting for the answer.
    let closed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        std::net::TcpStream::connect(&server.address).is_err()
    });
    assert!(closed, "the port is closed");
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"done\":true") && rest.contains("\"eval_count\""), "{rest}");
    assert_eq!(wait(&mut server.child), Some(0));
}

#[test]
fn a_port_that_ollama_has_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nOllama is running");
        }
    });
    let home = tempfile::tempdir().unwrap();
    let refused = finish(serve_command(home.path()).args(["--port", &port]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let parts = ["Ollama is running there", "stop Ollama", "--port", &port];
    assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{}", refused.stderr);
}

#[test]
fn variables_are_read_and_flags_win_over_them() {
    let variables = [
        ("OLLAMA_HOST", "'127.0.0.1:0'"),
        ("OLLAMA_CONTEXT_LENGTH", "512"),
        ("OLLAMA_NUM_PARALLEL", "3"),
        ("OLLAMA_KEEP_ALIVE", "-1"),
        ("OLLAMA_ORIGINS", "http://pages.example"),
    ];
    let facts = |server: &Serving| {
        server.post("/api/generate", &json!({"model": "demo", "prompt": ""}));
        let model = server.get("/api/ps")["models"][0].clone();
        let for_ever = model["expires_at"].as_str().unwrap() > "2100";
        let slots = server.get("/props?model=demo")["total_slots"].clone();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let url = format!("http://{}/api/version", server.address);
        let page = agent.get(url).header("Origin", "http://pages.example").call().unwrap();
        (model["context_length"].clone(), slots, for_ever, page.status().as_u16())
    };
    let by_variables = Serving::start_with(&[], &variables);
    assert!(by_variables.address.starts_with("127.0.0.1:"));
    assert_eq!(facts(&by_variables), (json!(512), json!(3), true, 200));
    let flags =
        ["--ctx", "768", "--parallel", "2", "--keep-alive", "1h", "--origins", "http://other.example"];
    assert_eq!(facts(&Serving::start_with(&flags, &variables)), (json!(768), json!(2), false, 403));
    let none = Serving::start(&[]);
    assert_eq!(facts(&none), (json!(1024), json!(1), false, 403));
}

#[test]
fn a_variable_that_makes_no_sense_is_ignored_and_told() {
    let server = Serving::start_with(&[], &[("OLLAMA_LOAD_TIMEOUT", "soon"), ("OLLAMA_KEEP_ALIVE", "later")]);
    server.logged(&["WARN", "OLLAMA_LOAD_TIMEOUT=soon", "ignored"]);
    server.logged(&["WARN", "OLLAMA_KEEP_ALIVE=later", "ignored"]);
}

#[test]
fn a_server_streams_with_the_flags_of_a_run() {
    let flags =
        ["--residency", "stream", "--stream-cache", "33%", "--cache-policy", "lru", "--reader", "pread"];
    let server = Serving::start(&[&flags[..], &["--kv", "q8_0", "--ubatch", "64"]].concat());
    let options = json!({"temperature": 0, "num_predict": 8});
    let ask = json!({"model": "demo", "prompt": "What is a lynx?", "stream": false, "options": options});
    assert_eq!(server.post("/api/generate", &ask)["eval_count"], 8);
    let disk = &server.get("/api/ps")["models"][0]["hypura"]["tiers"]["NVMe"];
    assert!(disk.as_u64().unwrap() > 0, "without the flags all of it is in memory");
}

/// An answer that was being computed from a file that was written to went on with bytes of both versions.
#[test]
fn a_file_that_changes_while_it_streams_ends_its_answers_and_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("demo-moe-Q4_K_M.gguf");
    std::fs::copy(demo(), &copy).unwrap();
    let flags = ["--residency", "stream", "--stream-cache", "5%"];
    let server = Serving::start_with(&flags, &[("HYPURA_DEMO", copy.to_str().unwrap())]);
    let ask = json!({"model": "demo", "prompt": "What is a lynx?", "stream": false,
                     "options": {"num_predict": 3, "temperature": 0}});
    let file = File::options().write(true).open(&copy).unwrap();
    for length in [file.metadata().unwrap().len(), 4096] {
        let mut answer = server.begin(900);
        file.set_len(length).unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(length)).unwrap();
        let mut rest = String::new();
        answer.read_to_string(&mut rest).unwrap();
        let words = ["was changed while it was in use", "ends early"];
        assert!(words.iter().any(|words| rest.contains(words)), "{rest}");
        assert!(rest.contains("\"error\"") && !rest.contains(folder.path().to_str().unwrap()), "{rest}");
        let (status, text) = server.send("/api/generate", &ask);
        match length {
            4096 => assert!(status == 500 && text.contains("demo"), "{status}: {text}"),
            _ => assert!(status == 200 && text.contains("\"eval_count\":3"), "{status}: {text}"),
        }
    }
}

#[test]
fn every_request_has_one_line_in_the_log() {
    let server = Serving::start(&[]);
    server.send("/api/generate", &json!({"model": "nobody", "prompt": "x"}));
    server.logged(&["request", "status=404", "model=nobody"]);
    let suffix = json!({"model": "demo", "prompt": "x", "suffix": "y"});
    assert_eq!(server.send("/api/generate", &suffix).0, 400);
    server.logged(&["request", "status=400", "model=demo"]);
    server.post("/api/generate", &json!({"model": "demo", "prompt": "x", "stream": false}));
    server.logged(&["request", "status=200", "tokens="]);
    drop(server.begin(3000));
    let line = server.logged(&["request", "status=499", "bytes_read="]);
    let tokens = line.split_whitespace().find_map(|word| word.strip_prefix("tokens=")).unwrap();
    assert!(tokens.parse::<u32>().unwrap() > 0, "{line}");
    let log = std::fs::read_to_string(server.home.path().join("log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("status=")).count(), 4, "{log}");
}
