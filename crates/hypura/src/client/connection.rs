//! A connection to a server: where it is, whether it is one of ours, and requests.
//!
//! Owns the address and the key; keeps no connection open that a request does not need.

use serde_json::{Value, json};
use std::io::Read as _;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, RequestBuilder};

use hypura_server::address::{Address, stripped};

use super::{Answer, ClientError};

/// A server of this machine answers at once; one that does not answer such a question is not there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// No answer that is read whole is longer.
const MOST_ANSWER_BYTES: u64 = 256 << 20;
/// No text of an error is longer.
const MOST_ERROR_BYTES: u64 = 64 << 10;

/// Who listens at the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// Hypura, of this version.
    Hypura(String),
    /// Something else: Ollama, as a rule.
    Other,
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    address: Address,
    key: Option<String>,
}

impl Client {
    /// A client of the server that `HYPURA_HOST` or `OLLAMA_HOST` name, by default the usual one on this
    /// machine. Connects to nothing yet. `HYPURA_API_KEY` is its key.
    #[must_use]
    pub fn of_environment() -> Self {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !stripped(value).is_empty());
        let host = named("HYPURA_HOST").or_else(|| named("OLLAMA_HOST")).unwrap_or_default();
        Self::new(Address::parse(&host).for_clients(), named("HYPURA_API_KEY"))
    }

    /// The same with this key, if there is one.
    #[must_use]
    pub fn with_key_of(self, key: Option<String>) -> Self {
        Self { key: key.or(self.key), ..self }
    }

    /// A client of the server at this address.
    #[must_use]
    pub fn new(address: Address, key: Option<String>) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(PROBE_TIMEOUT))
            .user_agent(concat!("hypura/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&address.host) {
            // A proxy has nothing to do with this machine's own address.
            config = config.proxy(None);
        }
        Self { agent: config.build().into(), address, key }
    }

    /// The server, if one of ours runs.
    #[must_use]
    pub fn find() -> Option<Self> {
        let client = Self::of_environment();
        matches!(client.probe(), Listener::Hypura(_)).then_some(client)
    }

    /// Where it is, for people.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_loopback(&self.address.host)
    }

    /// Looks who listens.
    #[must_use]
    pub fn probe(&self) -> Listener {
        let request = self.agent.get(self.url("/api/version"));
        let request = request.config().timeout_global(Some(PROBE_TIMEOUT)).build();
        let Ok(mut response) = request.call() else { return Listener::Nobody };
        let mut text = String::new();
        let read = response.body_mut().as_reader().take(MOST_ERROR_BYTES).read_to_string(&mut text);
        let answer: Value = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
        // Ollama has no such field.
        answer["hypura"].as_str().map_or(Listener::Other, |version| Listener::Hypura(version.to_owned()))
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.with_key(self.agent.get(self.url(path)));
        self.whole(request.call())
    }

    /// Asks with a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.with_key(self.agent.post(self.url(path)));
        self.whole(request.send(body.to_string()))
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.with_key(self.agent.delete(self.url(path))).force_send_body();
        self.whole(request.send(body.to_string()))
    }

    /// Whether something is there.
    ///
    /// # Errors
    /// [`ClientError`] for anything but "no".
    pub fn has(&self, path: &str) -> Result<bool, ClientError> {
        let request = self.with_key(self.agent.head(self.url(path)));
        match self.checked(request.call()) {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send_file(&self, path: &str, file: std::fs::File) -> Result<(), ClientError> {
        let request = self.with_key(self.agent.post(self.url(path)));
        self.checked(request.send(file)).map(|_| ())
    }

    /// Asks for an answer that comes piece by piece.
    ///
    /// # Errors
    /// [`ClientError`] when there is no answer at all.
    pub fn stream(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        let request = self.with_key(self.agent.post(self.url(path)));
        let response = self.checked(request.send(body.to_string()))?;
        Ok(Answer::new(response.into_body(), self.address()))
    }

    /// Forgets a model that is loaded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unload(&self, model: &str) -> Result<(), ClientError> {
        self.post("/api/generate", &json!({"model": model, "keep_alive": 0, "stream": false})).map(|_| ())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    fn with_key<T>(&self, request: RequestBuilder<T>) -> RequestBuilder<T> {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    fn checked(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let mut response = sent.map_err(|source| ClientError::Unreachable {
            address: self.address(),
            source: Box::new(source),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut bytes = Vec::new();
        // Without its words the status must do.
        let _ = response.body_mut().as_reader().take(MOST_ERROR_BYTES).read_to_end(&mut bytes);
        Err(ClientError::Refused { status: status.as_u16(), message: error_text(status, &bytes) })
    }

    fn whole(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Value, ClientError> {
        let mut response = self.checked(sent)?;
        let nonsense = |why: String| ClientError::Nonsense { address: self.address(), why };
        let mut text = String::new();
        let mut body = response.body_mut().as_reader().take(MOST_ANSWER_BYTES);
        body.read_to_string(&mut text).map_err(|error| nonsense(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| nonsense(error.to_string()))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn error_text(status: StatusCode, bytes: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = answer["error"].as_str().or_else(|| answer["error"]["message"].as_str());
    text.map_or_else(|| format!("the server answered with HTTP {status}"), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    /// A server that gives one canned answer, and the request that it got.
    fn server(answer: &'static str) -> (Client, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let got = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..got]).into_owned()
        });
        (Client::new(address, Some("secret".to_owned())), thread)
    }

    fn ok(body: &str) -> &'static str {
        Box::leak(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
    }

    #[test]
    fn ollama_is_not_taken_for_one_of_ours() {
        assert_eq!(server(ok(r#"{"version":"0.33.0"}"#)).0.probe(), Listener::Other);
        assert_eq!(server(ok("hello")).0.probe(), Listener::Other);
        let (client, _) = server(ok(r#"{"version":"0.33.0","hypura":"0.1.0"}"#));
        assert_eq!(client.probe(), Listener::Hypura("0.1.0".to_owned()));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Client::new(Address::parse(&free.to_string()), None).probe(), Listener::Nobody);
    }

    #[test]
    fn errors_keep_the_words_of_the_server() {
        let answer =
            "HTTP/1.1 404 Not Found\r\ncontent-length: 31\r\n\r\n{\"error\":\"model 'x' not found\"}";
        let (client, _) = server(answer);
        let error = client.post("/api/show", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "model 'x' not found");
        assert!(matches!(error, ClientError::Refused { status: 404, .. }));
        let (client, _) = server("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops");
        assert!(client.get("/api/tags").unwrap_err().to_string().contains("502"));
        let (client, _) = server(ok("not json"));
        assert!(matches!(client.get("/api/tags"), Err(ClientError::Nonsense { .. })));
    }

    #[test]
    fn requests_carry_the_key_and_deletions_a_body() {
        let (client, thread) = server(ok(""));
        assert_eq!(client.delete("/api/delete", &json!({"model": "x"})).unwrap(), Value::Null);
        let request = thread.join().unwrap();
        assert!(request.starts_with("DELETE /api/delete HTTP/1.1"), "{request}");
        assert!(request.to_lowercase().contains("authorization: bearer secret"), "{request}");
        assert!(request.to_lowercase().contains("content-length: 13"), "{request}");
    }
}
