//! The program over a server. The server is a scripted one, so that each of its answers can be chosen; what
//! it was asked is checked, too.

use hypura_core::synth::Shape;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::kit::{Finished, finish, hypura, interrupt, model, wait};

/// One request: method and path, and the body.
type Asked = (String, Value);

/// What the server answers, by method and path; `None` is 404.
type Script = fn(&str, &Value) -> Option<Vec<Value>>;

struct Server {
    address: String,
    asked: Receiver<Asked>,
}

impl Server {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || answer(stream.unwrap(), script, &sender));
            }
        });
        Self { address, asked }
    }

    fn command(&self) -> Command {
        let mut command = hypura();
        command.env("HYPURA_HOST", &self.address);
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command().args(arguments))
    }

    /// All that was asked, but for the version.
    fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().filter(|(what, _)| what != "GET /api/version").collect()
    }
}

/// Answers requests of one connection until it is closed.
fn answer(stream: TcpStream, script: Script, asked: &Sender<Asked>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_lowercase());
        }
        let length =
            lines.iter().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut words = lines[0].split_whitespace();
        let what = format!("{} {}", words.next().unwrap().to_uppercase(), words.next().unwrap());
        let pieces = script(&what, &body);
        let _ = asked.send((what, body));
        let status = if pieces.is_some() { "200 OK" } else { "404 Not Found" };
        let pieces = pieces.unwrap_or_else(|| vec![json!({"error": "model not found"})]);
        write!(stream, "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for piece in pieces {
            if piece == "hang" {
                // Until the client is gone.
                let _ = reader.read(&mut [0]);
                return;
            }
            let line = format!("{piece}\n");
            if write!(stream, "{:x}\r\n{line}\r\n", line.len()).is_err() {
                return;
            }
        }
        if write!(stream, "0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn ours(what: &str) -> Option<Vec<Value>> {
    (what == "GET /api/version").then(|| vec![json!({"version": "0.33.0", "hypura": "0.1.0"})])
}

fn done() -> Value {
    json!({"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "eval_count": 4,
        "eval_duration": 2_000_000_000_u64, "prompt_eval_count": 3, "prompt_eval_duration": 1_000_000_000})
}

fn chatty(what: &str, body: &Value) -> Option<Vec<Value>> {
    let says = |key: &str, text: &str| json!({"message": {"role": "assistant", key: text}, "done": false});
    ours(what).or_else(|| match what {
        "POST /api/show" if body["model"] == "eyes" => {
            Some(vec![json!({"model_info": {}, "capabilities": ["completion", "vision"]})])
        }
        "POST /api/show" => Some(vec![json!({"model_info": {}})]),
        "POST /api/chat" => {
            Some(vec![says("thinking", "Hmm."), says("content", "Hel"), says("content", "lo"), done()])
        }
        "POST /api/generate" if body["stream"] == false => Some(vec![done()]),
        "POST /api/generate" => Some(vec![json!({"response": "raw", "done": false}), done()]),
        "POST /api/copy" | "DELETE /api/delete" => Some(Vec::new()),
        "GET /api/ps" => {
            Some(vec![json!({"models": [{"name": "x:latest", "digest": "abcdef0123456789", "size": 1024,
            "size_vram": 0, "context_length": 4096, "expires_at": "2318-01-01T00:00:00Z",
            "hypura": {"tiers": {"GPU": 0, "RAM": 1024, "NVMe": 2048}}}]})])
        }
        "GET /api/tags" => {
            Some(vec![json!({"models": [{"name": "x:latest", "digest": "abcdef0123456789", "size": 1024,
            "modified_at": "2020-01-01T00:00:00Z"}]})])
        }
        _ => None,
    })
}

#[test]
fn a_prompt_goes_to_the_server_that_runs() {
    let server = Server::start(chatty);
    let run =
        server.run(&["run", "x", "hi", "--temperature", "0", "-n", "9", "--ctx", "100"]).assert_success();
    assert_eq!(run.stdout, "Hello\n");
    assert!(
        run.stderr.contains("Hmm.") && run.stderr.contains("2.0 tok/s, 4 tokens after a prompt of 3"),
        "{}",
        run.stderr
    );
    let asked = server.asked();
    let body = json!({"model": "x", "stream": true, "messages": [{"role": "user", "content": "hi"}],
        "options": {"temperature": 0.0, "num_predict": 9, "num_ctx": 100}});
    assert_eq!(
        asked,
        [("POST /api/show".to_owned(), json!({"model": "x"})), ("POST /api/chat".to_owned(), body)]
    );
}

#[test]
fn a_raw_prompt_goes_as_it_is() {
    let server = Server::start(chatty);
    assert_eq!(server.run(&["run", "x", "hi", "--raw"]).assert_success().stdout, "raw\n");
    let body = json!({"model": "x", "stream": true, "prompt": "hi", "raw": true});
    assert_eq!(server.asked()[1], ("POST /api/generate".to_owned(), body));
}

#[test]
fn what_only_a_model_of_ones_own_can_give_is_done_here() {
    let server = Server::start(chatty);
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path(), Shape::TinyLlama, 1);
    let file = file.to_str().unwrap();
    for flags in
        [&["--local"][..], &["--residency", "resident"], &["--stats-json", "-"], &["--memory", "1GiB"]]
    {
        server.run(&[&["run", file, "hi", "-n", "1"][..], flags].concat()).assert_success();
        assert_eq!(server.asked.try_iter().count(), 0, "{flags:?}: the server was asked");
    }
    // A file that the server does not have is loaded here, too.
    server.run(&["run", file, "hi", "-n", "1"]).assert_success();
    assert_eq!(server.asked(), [("GET /api/tags".to_owned(), Value::Null)]);
}

#[test]
fn ollama_is_left_alone() {
    fn ollama(what: &str, _: &Value) -> Option<Vec<Value>> {
        (what == "GET /api/version").then(|| vec![json!({"version": "0.33.0"})])
    }
    let server = Server::start(ollama);
    server.run(&["run", "no-such-model", "hi"]).assert_error(1, &["no model and no file"]);
    server.run(&["ps"]).assert_error(1, &["is not Hypura"]);
    assert!(server.asked().is_empty());
}

#[test]
fn errors_of_the_server_are_told_in_its_words() {
    fn failing(what: &str, body: &Value) -> Option<Vec<Value>> {
        match what {
            "POST /api/chat" => Some(vec![
                json!({"message": {"content": "so far"}, "done": false}),
                json!({"error": "the disk failed"}),
            ]),
            _ => chatty(what, body).filter(|_| what != "POST /api/copy"),
        }
    }
    let server = Server::start(failing);
    let run = server.run(&["run", "x", "hi"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "so far\n"));
    assert!(run.stderr.contains("hypura: the disk failed"), "{}", run.stderr);
    server.run(&["cp", "x", "y"]).assert_error(1, &["model not found"]);
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    fn short(what: &str, body: &Value) -> Option<Vec<Value>> {
        let answer = chatty(what, body);
        answer.map(|pieces| if what == "POST /api/chat" { pieces[..2].to_vec() } else { pieces })
    }
    let run = Server::start(short).run(&["run", "x", "hi"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("ended its answer early"), "{}", run.stderr);
}

#[test]
fn ctrl_c_ends_the_answer_and_hangs_up() {
    fn slow(what: &str, body: &Value) -> Option<Vec<Value>> {
        match what {
            "POST /api/chat" => {
                Some(vec![json!({"message": {"content": "begun"}, "done": false}), json!("hang")])
            }
            _ => chatty(what, body),
        }
    }
    let server = Server::start(slow);
    let mut child = server
        .command()
        .args(["run", "x", "hi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"begun");
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130));
}

#[test]
fn the_other_commands_ask_the_server() {
    let server = Server::start(chatty);
    let ps = server.run(&["ps"]).assert_success().stdout;
    for part in [
        "PROCESSOR",
        "CONTEXT",
        "UNTIL",
        "TIERS",
        "x:latest",
        "100% CPU",
        "Forever",
        "RAM 1.00 KiB, NVMe 2.00 KiB",
    ] {
        assert!(ps.contains(part), "{part} is not in {ps}");
    }
    assert!(server.run(&["list"]).assert_success().stdout.contains("x:latest    abcdef012345"));
    server.run(&["stop", "x"]).assert_success();
    server.run(&["cp", "x", "y"]).assert_success();
    server.run(&["rm", "x", "y"]).assert_success();
    let asked = server.asked();
    let what: Vec<&str> = asked.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        what,
        [
            "GET /api/ps",
            "GET /api/tags",
            "POST /api/generate",
            "POST /api/copy",
            "DELETE /api/delete",
            "DELETE /api/delete"
        ]
    );
    assert_eq!(asked[2].1, json!({"model": "x", "keep_alive": 0, "stream": false}));
    assert_eq!(asked[5].1, json!({"model": "y"}));
}

#[test]
fn pictures_go_to_a_server_whose_model_sees() {
    let server = Server::start(chatty);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b.gif");
    // The smallest picture that there is.
    let gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    std::fs::write(&path, gif).unwrap();
    let path = path.to_str().unwrap();
    let sent = |arguments: &[&str]| {
        server.run(arguments).assert_success();
        server.asked().into_iter().rev().find(|(what, _)| what != "POST /api/show").unwrap().1
    };
    let by_flag = sent(&["run", "eyes", "what?", "--image", path]);
    assert_eq!(by_flag["messages"][0]["content"], "what?");
    let encoded = by_flag["messages"][0]["images"][0].as_str().unwrap().to_owned();
    assert!(encoded.starts_with("R0lGODlh"), "{encoded}");
    let by_name = sent(&["run", "eyes", &format!("what is '{path}'")]);
    assert_eq!(by_name["messages"][0]["images"][0], *encoded);
    assert_eq!(by_name["messages"][0]["content"], "what is");
    let raw = sent(&["run", "eyes", "look", "--image", path, "--raw"]);
    assert_eq!((&raw["prompt"], &raw["images"][0]), (&json!("[img-0]look"), &json!(encoded)));
    server.run(&["run", "x", "what?", "--image", path]).assert_error(1, &["sees no images"]);
    let words = sent(&["run", "x", &format!("what is '{path}'")]);
    assert!(words["messages"][0]["content"].as_str().unwrap().contains("a b.gif"));
}
