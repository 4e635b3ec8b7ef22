// SPDX-License-Identifier: GPL-2.0-only

//! From the bytes of an HTTP request to the bytes of its answer.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest request taken, headers and body.
pub const MAX_REQUEST: usize = 256 * 1024;
/// Steps of one unit of work.
const UNIT: u64 = 1000;
const MAX_HEADERS: usize = 64;

/// What became of the bytes received so far.
pub enum Parsed {
    /// More are needed.
    Partial,
    /// The first `used` bytes are a request.
    Request { used: usize, answer: Answer },
}

/// How a request is answered.
pub struct Answer {
    /// Not before this time has passed.
    pub delay: Duration,
    /// The whole response.
    pub bytes: Vec<u8>,
    /// Whether the connection ends with it.
    pub close: bool,
}

/// Takes a request from `input`, and does the work it asks for.
pub fn answer(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_REQUEST => return Parsed::Partial,
        Ok(httparse::Status::Partial) => return refuse(input, "request too long"),
        Err(error) => return refuse(input, &error.to_string()),
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    };
    let body = header("content-length").map_or(Ok(0), str::parse::<usize>);
    let Ok(body) = body else {
        return refuse(input, "bad content-length");
    };
    let used = head.saturating_add(body);
    if used > MAX_REQUEST {
        return refuse(input, "request too long");
    }
    if input.len() < used {
        return Parsed::Partial;
    }
    let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (delay, status, body) = serve(request.path.unwrap_or_default());
    Parsed::Request {
        used,
        answer: Answer {
            delay,
            bytes: response(status, &body, close),
            close,
        },
    }
}

fn serve(target: &str) -> (Duration, &'static str, Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = |name| number(query, name);
    let now = Duration::ZERO;
    let bad = || {
        (
            now,
            "400 Bad Request",
            format!("{target}: not a number\n").into_bytes(),
        )
    };
    match path {
        "/ping" => (now, "200 OK", b"pong\n".to_vec()),
        "/clock" => {
            let time = SystemTime::now().duration_since(UNIX_EPOCH);
            let time = time.unwrap_or_default().as_nanos();
            (now, "200 OK", format!("{time}\n").into_bytes())
        }
        "/work" => {
            let Some(units) = number("n") else {
                return bad();
            };
            let start = Instant::now();
            work(units);
            let took = start.elapsed().as_nanos();
            (
                now,
                "200 OK",
                format!("{{\"units\":{units},\"ns\":{took}}}\n").into_bytes(),
            )
        }
        "/sleep" => match number("ms") {
            Some(ms) => (
                Duration::from_millis(ms),
                "200 OK",
                format!("{{\"ms\":{ms}}}\n").into_bytes(),
            ),
            None => bad(),
        },
        "/data" => match number("bytes").and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) if bytes <= MAX_REQUEST => (now, "200 OK", vec![b'x'; bytes]),
            _ => bad(),
        },
        _ => (
            now,
            "404 Not Found",
            format!("{path}: no such page\n").into_bytes(),
        ),
    }
}

/// The number `name` of a query, 1 if it is missing, nothing if it is none.
pub fn number(query: &str, name: &str) -> Option<u64> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.map_or(Some(1), |text| text.parse().ok())
}

/// Does `units` units of work: a chain of steps that no compiler can shorten.
pub fn work(units: u64) {
    let mut value = black_box(1u64);
    for _ in 0..units.saturating_mul(UNIT) {
        value = (value ^ (value >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    black_box(value);
}

fn refuse(input: &[u8], why: &str) -> Parsed {
    let bytes = response("400 Bad Request", format!("{why}\n").as_bytes(), true);
    Parsed::Request {
        used: input.len(),
        answer: Answer {
            delay: Duration::ZERO,
            bytes,
            close: true,
        },
    }
}

fn response(status: &str, body: &[u8], close: bool) -> Vec<u8> {
    let connection = if close { "close" } else { "keep-alive" };
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
