//! A web server for one test: files, ranges, and the ways in which servers fail.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a path answers.
#[derive(Clone)]
pub enum Answer {
    /// A file, in ranges where asked.
    File(Arc<Vec<u8>>),
    /// A file that is always sent whole.
    Whole(Arc<Vec<u8>>),
    /// A file of which half of each range arrives.
    Broken(Arc<Vec<u8>>),
    /// A file of which another range arrives than was asked for.
    Shifted(Arc<Vec<u8>>),
    /// Look elsewhere.
    Redirect(String),
    /// An error.
    Status(u16),
}

/// Serves until the test process ends.
pub struct Server {
    pub address: String,
    /// Bytes of bodies that were sent.
    pub sent_bytes: Arc<AtomicU64>,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let sent_bytes: Arc<AtomicU64> = Arc::default();
        let (shared, counter) = (Arc::clone(&answers), Arc::clone(&sent_bytes));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, counter) = (Arc::clone(&shared), Arc::clone(&counter));
                // A client that disconnects is its own business.
                std::thread::spawn(move || drop(serve(stream, &shared, &counter)));
            }
        });
        Self { address, sent_bytes, answers }
    }

    pub fn put(&self, path: &str, answer: Answer) -> String {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
        format!("{}{path}", self.address)
    }
}

fn serve(
    stream: TcpStream,
    answers: &Mutex<HashMap<String, Answer>>,
    sent_bytes: &AtomicU64,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((first, last)) =
            line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-'))
        {
            range = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap()));
        }
    }
    let answer = answers.lock().unwrap().get(&path).cloned().unwrap_or(Answer::Status(404));
    let (head, body) = respond(&answer, range);
    sent_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    let mut stream = stream;
    stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    stream.write_all(&body)
}

/// Status and headers, and the body.
fn respond(answer: &Answer, range: Option<(usize, usize)>) -> (String, Vec<u8>) {
    let part = |file: &[u8]| {
        let (first, last) = range.unwrap();
        let last = last.min(file.len() - 1);
        let head = format!(
            "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}",
            last + 1 - first,
            file.len()
        );
        (head, file[first..=last].to_vec())
    };
    let whole = |file: &[u8]| (format!("200 OK\r\nContent-Length: {}", file.len()), file.to_vec());
    match answer {
        Answer::File(file) if range.is_some() => part(file),
        Answer::File(file) | Answer::Whole(file) => whole(file),
        Answer::Broken(file) => {
            let (head, body) = part(file);
            (head, body[..body.len() / 2].to_vec())
        }
        Answer::Shifted(file) => {
            let (head, body) = part(file);
            (head.replace("bytes 0-", "bytes 32-"), body)
        }
        Answer::Redirect(to) => (format!("302 Found\r\nContent-Length: 0\r\nLocation: {to}"), Vec::new()),
        Answer::Status(code) => (format!("{code} Sorry\r\nContent-Length: 0"), Vec::new()),
    }
}
