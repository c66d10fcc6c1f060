//! The process that each model has: what ends it ends nothing else.

use hypura_core::gguf::{HeaderBuilder, Metadata, read_header};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::kit::{model, run, terminate, wait};
use crate::serving::Serving;

/// The runners of a server: its children.
fn runners(server: &Serving) -> Vec<u32> {
    let path = format!("/proc/{0}/task/", server.child.id());
    let tasks = fs::read_dir(path).unwrap().filter_map(Result::ok);
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let ids: Vec<u32> = children
        .flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect();
    ids
}

fn signal(name: &str, id: u32) {
    // One that has ended meanwhile is as good.
    let _ = Command::new("kill").args([name, &id.to_string()]).status().unwrap();
}

fn ask(tokens: u32) -> Value {
    let options = json!({"num_predict": tokens, "temperature": 0});
    json!({"model": "demo", "prompt": "What is a lynx?", "stream": false, "options": options})
}

/// A tiny model with other metadata.
fn tampered(folder: &Path, edit: impl FnOnce(&mut Metadata)) -> PathBuf {
    let path = model(folder, Shape::TinyLlama, 1);
    let bytes = fs::read(&path).unwrap();
    let header = read_header(bytes.as_slice(), bytes.len() as u64).unwrap();
    let mut builder = HeaderBuilder::new();
    *builder.metadata_mut() = header.metadata;
    edit(builder.metadata_mut());
    for tensor in &header.tensors {
        builder.tensor(&tensor.name, &tensor.shape, tensor.ty);
    }
    let mut file = Vec::new();
    let layout = builder.write_header(&mut file).unwrap();
    for (at, tensor) in header.tensors.iter().enumerate() {
        let start = usize::try_from(tensor.offset).unwrap();
        file.extend_from_slice(&bytes[start..start + usize::try_from(tensor.bytes).unwrap()]);
        file.resize(file.len() + usize::try_from(layout.padding_after(at)).unwrap(), 0);
    }
    fs::write(&path, file).unwrap();
    path
}

/// A file whose vocabulary is of another kind than it says: llama.cpp throws where it reads text.
fn throwing(folder: &Path) -> PathBuf {
    tampered(folder, |metadata| {
        metadata.insert("tokenizer.ggml.model", "llama");
    })
}

/// Every thread of it, the log says so, and it answers all the same.
#[test]
fn the_process_of_a_model_gives_up_what_models_do_not_need() {
    let server = Serving::start(&[]);
    assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3);
    let [runner] = runners(&server)[..] else { panic!("one runner") };
    let tasks = fs::read_dir(format!("/proc/{runner}/task")).unwrap().filter_map(Result::ok);
    for status in tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()) {
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    }
    assert_eq!(fs::read_to_string(format!("/proc/{runner}/oom_score_adj")).unwrap(), "500\n");
    server.logged(&["models are confined", "system_calls=yes"]);
}

#[test]
fn a_file_that_ends_llama_cpp_is_one_line_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = throwing(folder.path());
    let finished = run(["run", path.to_str().unwrap(), "hi"]);
    finished.assert_error(1, &["cannot run", "tiny-llama"]);
}

/// A file whose chat template counts for years.
fn looping(folder: &Path) -> PathBuf {
    tampered(folder, |metadata| {
        let template =
            "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}";
        metadata.insert("tokenizer.chat_template", template);
    })
}

#[test]
fn a_template_that_never_ends_is_one_line_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = looping(folder.path());
    run(["run", path.to_str().unwrap(), "hi"]).assert_error(1, &["cannot run", "chat template did not end"]);
}

/// A file with a template that did not parse answered no conversation.
#[test]
fn a_template_that_does_not_parse_is_told_with_its_place_and_chatml_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = tampered(folder.path(), |metadata| {
        let template = "{% for m in messages %}\n  {{ m.content }\n{% endfor %}{{ messages +* 1 }}";
        metadata.insert("tokenizer.chat_template", template);
    });
    let words = ["does not parse (line 2, {{ m.content }", "ChatML is assumed"];
    let ran = run(["run", path.to_str().unwrap(), "hi", "-n", "2"]).assert_success();
    let warnings: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("hypura: warning")).collect();
    assert!(warnings.len() == 1 && words.iter().all(|part| warnings[0].contains(part)), "{}", ran.stderr);
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap()]);
    let messages = json!([{"role": "user", "content": "hi"}]);
    let options = json!({"num_predict": 2, "temperature": 0});
    let chat = json!({"model": name, "messages": messages, "options": options, "stream": false,
                      "_debug_render_only": true});
    let rendered = server.post("/api/chat", &chat);
    let text = rendered["_debug_info"]["rendered_template"].as_str().unwrap();
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    server.logged(&["WARN", &name, words[0], words[1]]);
}

/// The same where there is none: `run` said nothing.
#[test]
fn a_run_says_that_a_file_has_no_template() {
    let folder = tempfile::tempdir().unwrap();
    let path = tampered(folder.path(), |metadata| {
        *metadata = metadata.iter().filter(|(key, _)| *key != "tokenizer.chat_template").fold(
            Metadata::default(),
            |mut kept, (key, value)| {
                kept.insert(key, value.clone());
                kept
            },
        );
    });
    let ran = run(["run", path.to_str().unwrap(), "hi", "-n", "2"]).assert_success();
    assert!(ran.stderr.contains("the file has no chat template: ChatML is assumed"), "{}", ran.stderr);
    let raw = run(["run", path.to_str().unwrap(), "hi", "-n", "2", "--raw"]).assert_success();
    assert!(!raw.stderr.contains("ChatML"), "{}", raw.stderr);
}

/// A conversation that the file's own template refuses is the client's fault, in the template's words.
#[test]
fn a_template_that_refuses_a_conversation_is_a_400_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = tampered(folder.path(), |metadata| {
        metadata.insert("tokenizer.chat_template", "{{ messages and raise_exception('only about cats') }}");
    });
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap()]);
    let messages = json!([{"role": "user", "content": "hi"}]);
    for route in ["/api/chat", "/v1/chat/completions"] {
        let (status, text) =
            server.send(route, &json!({"model": name, "messages": messages, "stream": false}));
        assert!(status == 400 && text.contains("only about cats"), "{route}: {status}: {text}");
    }
}

/// What a template can do was found out while its model was loaded: nobody could load another meanwhile.
#[test]
fn a_template_that_never_ends_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = looping(folder.path());
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap(), "--runner-deadline", "8"]);
    std::thread::scope(|scope| {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let chat = json!({"model": name, "messages": messages, "stream": false});
        let (server, start) = (&server, Instant::now());
        let looping = scope.spawn(move || server.send("/api/chat", &chat));
        while server.get("/api/ps")["models"].as_array().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "it is loaded at once");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!looping.is_finished());
        assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3, "others are served meanwhile");
        let (status, text) = looping.join().unwrap();
        assert!(status == 500 && text.contains("did not answer within 8 s"), "{status}: {text}");
    });
}

/// A template of a client that looped or recursed ended the process of a model that others use.
#[test]
fn templates_of_clients_end_no_model() {
    let server = Serving::start(&["--runner-deadline", "4"]);
    server.post("/api/generate", &ask(3));
    let [runner] = runners(&server)[..] else { panic!("one runner") };
    let with = |template: &str| {
        let mut body = ask(3);
        body["template"] = template.into();
        server.send("/api/generate", &body)
    };
    let nested = format!("{{{{ messages[0] and {}1{} }}}}", "[".repeat(50_000), "]".repeat(50_000));
    for (template, words) in [
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ messages }}{% endfor %}{% endfor %}",
            "",
        ),
        ("{% macro f(x) %}{{ f(messages) }}{% endmacro %}{{ f(1) }}", ""),
        (
            "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
            "",
        ),
        ("{{ raise_exception('only about cats') }}{{ messages }}", "only about cats"),
        ("{% if messages %}", "template error"),
    ] {
        let (status, text) = with(template);
        assert!(status == 400 && text.contains(words), "{template:.60}: {status}: {text}");
        assert!(text.contains("template"), "{template:.60}: {status}: {text}");
        assert_eq!(runners(&server), [runner], "{template:.60}");
    }
    // Deep, and as it turns out too deep or not: nobody's model ends over it.
    let (status, text) = with(&nested);
    assert!([200, 400].contains(&status), "{status}: {text}");
    assert_eq!(runners(&server), [runner]);
    let (status, text) = with("{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}");
    assert_eq!(status, 200, "{text}");
    assert_eq!(runners(&server), [runner]);
}

/// A template that writes calls between tags: llama.cpp translates the schemas of tools for it.
const TAGGED: &str = "\
    {%- for tool in tools or [] %}{{- tool | tojson }}{%- endfor %}{%- for message in messages %}\
    {%- if message.role == 'assistant' and message.tool_calls %}{{- '<|im_start|>assistant\\n' }}\
    {%- for call in message.tool_calls %}{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}\
    {%- for k, v in call.function.arguments | items %}{{- '<parameter=' + k + '>\\n' }}\
    {{- (v | tojson | string) if v is mapping or (v is sequence and v is not string) else (v | string) }}\
    {{- '\\n</parameter>\\n' }}\
    {%- endfor %}{{- '</function>\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}\
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
    {%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}\
    {%- endif %}";

/// How a schema begins.
fn head(schema: &Value) -> String {
    schema.to_string().chars().take(60).collect()
}

/// Tools whose schemas explode while they are translated kept the model's process busy until it was ended.
#[test]
fn schemas_of_tools_that_explode_end_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = tampered(folder.path(), |metadata| {
        metadata.insert("tokenizer.chat_template", TAGGED);
    });
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap(), "--runner-deadline", "20"]);
    let chain = |link: &dyn Fn(Value) -> Value| {
        let next = |at: usize| json!({"$ref": format!("#/$defs/a{}", at + 1)});
        let all = (0..30).map(|at| (format!("a{at}"), link(next(at))));
        let all: serde_json::Map<_, _> = all.chain([("a30".to_owned(), json!({"type": "string"}))]).collect();
        json!({"$defs": all, "type": "object", "properties": {"q": {"$ref": "#/$defs/a0"}}})
    };
    let wide = |count: usize, part: &Value| -> Value {
        let all: serde_json::Map<_, _> = (0..count).map(|at| (format!("p{at}"), part.clone())).collect();
        json!({"type": "object", "properties": all})
    };
    let text = json!({"type": "string"});
    let mut runner = None;
    for schema in [
        json!({"type": "object", "properties": {"q": {"type": "integer"}}}),
        chain(&|next| json!({"allOf": [next, next]})),
        chain(&|next| json!({"anyOf": [next, next]})),
        wide(60, &wide(60, &wide(60, &text))),
        wide(20_000, &text),
        json!({"type": "object", "properties": {"q": {"enum": (0..100_000).collect::<Vec<_>>()}}}),
    ] {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
        let messages = json!([{"role": "user", "content": "hi"}]);
        let mut answers = Vec::new();
        for model in [&name, "demo"] {
            let chat = json!({"model": model, "messages": messages, "tools": tools, "stream": false,
                              "options": {"num_predict": 2}});
            let (status, text) = server.send("/api/chat", &chat);
            answers.push(text.to_string().chars().take(300).collect::<String>());
            // Tools that fill the context, or that the template has no place for, are refused.
            assert!([200, 400].contains(&status), "{model}: {}: {status}: {text}", head(&schema));
        }
        let now = runners(&server);
        let before = runner.get_or_insert_with(|| now.clone());
        assert_eq!(before, &now, "{}: the same processes as before: {answers:?}", head(&schema));
    }
}

#[test]
fn a_file_that_ends_its_process_is_an_error_and_the_third_time_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = throwing(folder.path());
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap()]);
    let ask_it = || server.send("/api/generate", &json!({"model": name, "prompt": "hi"}));
    for _ in 0..2 {
        let (status, text) = ask_it();
        assert!(
            status == 500 && text.contains("its process failed: ") && text.contains(&name),
            "{status}: {text}"
        );
    }
    let (status, text) = ask_it();
    assert!(
        status == 500 && text.contains("not loaded again") && text.contains("its process failed: "),
        "{text}"
    );
    assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3, "others are served");
    assert_eq!(runners(&server).len(), 1);
}

#[test]
fn each_model_has_a_process_and_unloading_ends_it() {
    let server = Serving::start(&[]);
    assert!(runners(&server).is_empty());
    server.post("/api/generate", &ask(3));
    assert_eq!(runners(&server).len(), 1);
    server.post("/api/generate", &json!({"model": "demo", "keep_alive": 0}));
    let start = Instant::now();
    while !runners(&server).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "it stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn runners_end_with_their_server_however_it_ends() {
    for signalled in ["-TERM", "-KILL"] {
        let mut server = Serving::start(&[]);
        server.post("/api/generate", &ask(3));
        let [runner] = runners(&server)[..] else { panic!("one runner") };
        match signalled {
            "-TERM" => terminate(&server.child),
            _ => server.child.kill().unwrap(),
        }
        wait(&mut server.child);
        let start = Instant::now();
        while Path::new(&format!("/proc/{runner}")).exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "{signalled}: it stays");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_runner_that_hangs_is_ended_and_the_next_request_has_another() {
    let server = Serving::start(&["--runner-deadline", "3"]);
    server.post("/api/generate", &ask(3));
    let [runner] = runners(&server)[..] else { panic!("one runner") };
    signal("-STOP", runner);
    let (status, text) = server.send("/api/generate", &ask(3));
    assert!(status == 500 && text.contains("model 'demo"), "{status}: {text}");
    assert!(text.contains("hung") || text.contains("did not answer"), "{text}");
    assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3);
    assert_ne!(runners(&server), [runner]);
}

/// Stops one thread of a process, as long as this program runs: the process cannot even be killed for good
/// before.
const FREEZE: &str = "
import ctypes, sys, time
SEIZE, INTERRUPT = 0x4206, 0x4207
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
stopped = [ptrace(request, int(sys.argv[1]), None, None) for request in (SEIZE, INTERRUPT)]
print('stopped' if stopped == [0, 0] else 'not allowed', flush=True)
time.sleep(120)
";

/// The process is as talkative as ever, and the thread that computes does nothing.
#[test]
fn a_model_that_hangs_in_the_middle_of_an_answer_is_one_clear_error() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let server = Serving::start(&["--runner-deadline", "4"]);
    server.post("/api/generate", &ask(3));
    let [runner] = runners(&server)[..] else { panic!("one runner") };
    let tasks = fs::read_dir(format!("/proc/{runner}/task")).unwrap().filter_map(Result::ok);
    let computes =
        |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "scheduler\n");
    let thread = tasks.map(|task| task.path()).find(|path| computes(path)).unwrap();
    let thread = thread.file_name().unwrap().to_str().unwrap().to_owned();
    // An answer that does not end meanwhile.
    let numbers = json!({"type": "array", "items": {"type": "integer"}, "minItems": 3000, "maxItems": 3000});
    let mut answer = server.begin_with(&json!({"model": "demo", "prompt": "1", "format": numbers}));
    let python = Command::new("python3").args(["-c", FREEZE, &thread]).stdout(Stdio::piped()).spawn();
    let Ok(mut freezer) = python else { return eprintln!("NOT TESTED: there is no python3") };
    let mut said = String::new();
    BufReader::new(freezer.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let mut rest = String::new();
    if said == "stopped\n" {
        answer.read_to_string(&mut rest).unwrap();
    }
    freezer.kill().unwrap();
    freezer.wait().unwrap();
    if said != "stopped\n" {
        return eprintln!("NOT TESTED: nobody may trace here");
    }
    let words = "model 'demo:latest' failed: its process hung: nothing was computed or read for";
    assert_eq!(rest.matches(words).count(), 1, "{}", &rest[rest.len().saturating_sub(2000)..]);
    assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3, "the next request has another");
}

/// Kills the runner at moments that nothing chose, with four clients at work. `HYPURA_KILLS` is how often.
#[test]
fn a_runner_killed_under_load_fails_its_requests_clearly_and_nothing_else() {
    let kills = std::env::var("HYPURA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(50_usize);
    let server = Serving::start(&["--parallel", "2"]);
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let (mut answered, mut failed) = (0, 0);
                    while !over.load(Ordering::SeqCst) {
                        let (status, text) = server.send("/api/generate", &ask(5 + client * 20));
                        match status {
                            200 => answered += 1,
                            500 | 503 => {
                                let known = ["signal 9", "was unloaded", "being unloaded"];
                                assert!(known.iter().any(|words| text.contains(words)), "{status}: {text}");
                                failed += 1;
                            }
                            _ => panic!("{status}: {text}"),
                        }
                    }
                    (answered, failed)
                })
            })
            .collect();
        let mut wait_ms = 7;
        for _ in 0..kills {
            wait_ms = (wait_ms * 73 + 19) % 251;
            std::thread::sleep(Duration::from_millis(20 + wait_ms));
            runners(&server).iter().for_each(|runner| signal("-KILL", *runner));
        }
        over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .fold((0, 0), |sum: (u32, u32), next| (sum.0 + next.0, sum.1 + next.1))
    });
    println!("{kills} kills: {} requests answered, {} failed clearly", asked.0, asked.1);
    assert!(asked.1 > 0, "the kills hit requests: {asked:?}");
    assert_eq!(server.post("/api/generate", &ask(3))["eval_count"], 3, "the next load works: {asked:?}");
    server.post("/api/generate", &json!({"model": "demo", "keep_alive": 0}));
    let start = Instant::now();
    while !(runners(&server).is_empty() && server.get("/api/ps")["models"].as_array().unwrap().is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(20), "something is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_model_is_quantised_in_a_process_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let plan = SynthPlan::new(&SynthOptions::new(Shape::TinyLlama, Quant::F16)).unwrap();
    let path = folder.path().join(plan.file_name("full", 0));
    let mut bytes = vec![0; plan.shards()[0].file_bytes as usize];
    plan.fill_file(0, 0, &mut bytes);
    fs::write(&path, bytes).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap();
    let server = Serving::start(&[path.to_str().unwrap()]);
    let order = json!({"model": "small", "from": name, "quantize": "Q8_0", "stream": false});
    assert_eq!(server.post("/api/create", &order)["status"], "success");
    assert!(runners(&server).is_empty(), "it ended with its work");
    let shown = server.post("/api/show", &json!({"model": "small"}));
    assert_eq!(shown["details"]["quantization_level"], "Q8_0", "{shown}");
    let mut body = ask(3);
    body["model"] = "small".into();
    assert_eq!(server.post("/api/generate", &body)["eval_count"], 3);
}

#[test]
fn long_runs_of_one_character_are_answered_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    // A rule that llama.cpp has no code of its own for: `std::regex` recurses for each character.
    let path = tampered(folder.path(), |metadata| {
        metadata.insert("tokenizer.ggml.pre", "gpt-4o");
    });
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let server = Serving::start(&[path.to_str().unwrap()]);
    for character in ["-", "a", " "] {
        for (length, statuses) in [(9234, [200, 400]), (95_000, [200, 400]), (300_000, [400, 400])] {
            let prompt = format!("x, {}.", character.repeat(length));
            let options = json!({"num_predict": 1, "temperature": 0});
            let body = json!({"model": name, "prompt": prompt, "stream": false, "options": options});
            let (status, text) = server.send("/api/generate", &body);
            assert!(statuses.contains(&status), "{length} of {character:?}: {status}: {text}");
        }
    }
}
