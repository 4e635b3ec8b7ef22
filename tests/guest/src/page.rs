// SPDX-License-Identifier: GPL-2.0-only

//! What the servers of `web` answer, by HTTP and by gRPC: one list of pages for both.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, StatusCode};
use tokio::time::sleep;

use crate::answer::{number, work};
use crate::call::call;
use crate::storm;

/// The longest `/data`, and the longest piece of a `/stream`.
const MAX_BYTES: u64 = 8 << 20;
/// Units of work between two looks at other requests.
const SLICE: u64 = 1000;

/// An answer.
pub struct Page {
    /// How it went.
    pub status: StatusCode,
    /// The content, in the pieces that it becomes known in.
    pub pieces: BoxStream<'static, Bytes>,
    /// How long it is, if that is known before.
    length: Option<usize>,
}

impl Page {
    /// An answer that is there at once.
    pub fn new(status: StatusCode, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self {
            status,
            length: Some(content.len()),
            pieces: stream::iter([content]).boxed(),
        }
    }

    fn ok(content: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, content)
    }

    /// An answer to a mistake of the client's.
    pub fn refuse(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{why}\n"))
    }
}

/// Answers an HTTP request.
pub async fn answer(
    request: Request<Incoming>,
) -> Response<impl Body<Data = Bytes, Error = Infallible>> {
    let (head, body) = request.into_parts();
    let page = match head.uri.path() {
        "/sink" => sink(body).await,
        _ => {
            page(
                head.uri
                    .path_and_query()
                    .map_or("", |target| target.as_str()),
            )
            .await
        }
    };
    let frames = page.pieces.map(|piece| Ok(Frame::data(piece)));
    let mut response = Response::new(StreamBody::new(frames));
    *response.status_mut() = page.status;
    if let Some(length) = page.length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// The page of this path and query.
pub async fn page(target: &str) -> Page {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let made = match path {
        "/ping" => Some(Page::ok("pong\n")),
        "/work" => spend(query).await,
        "/sleep" => rest(query).await,
        "/data" => data(query),
        "/stream" => stream(query),
        "/call" => return call(query).await,
        "/storm" => Some(storm_so_far()),
        _ => {
            return Page::new(StatusCode::NOT_FOUND, format!("{path}: no such page\n"));
        }
    };
    made.unwrap_or_else(|| Page::refuse(&format!("{target}: not a number, or too high")))
}

async fn spend(query: &str) -> Option<Page> {
    let units = number(query, "n")?;
    let start = Instant::now();
    let mut left = units;
    while left > 0 {
        let slice = left.min(SLICE);
        work(slice);
        left -= slice;
        tokio::task::yield_now().await;
    }
    let took = start.elapsed().as_nanos();
    Some(Page::ok(format!("{{\"units\":{units},\"ns\":{took}}}\n")))
}

/// Takes the storm's lock once, too.
fn storm_so_far() -> Page {
    storm::turn();
    let (turns, longest) = storm::report();
    Page::ok(format!("{{\"turns\":{turns},\"longest_ns\":{longest}}}\n"))
}

async fn rest(query: &str) -> Option<Page> {
    let ms = number(query, "ms")?;
    sleep(Duration::from_millis(ms)).await;
    Some(Page::ok(format!("{{\"ms\":{ms}}}\n")))
}

fn data(query: &str) -> Option<Page> {
    Some(Page::ok(fill(number(query, "bytes")?)?))
}

/// `chunks` pieces of `bytes` each, with a pause of `ms` between one and the next.
fn stream(query: &str) -> Option<Page> {
    let chunks = number(query, "chunks")?;
    let gap = Duration::from_millis(number(query, "ms")?);
    let piece = fill(number(query, "bytes")?)?;
    let pieces = stream::iter(0..chunks).then(move |chunk| {
        let piece = piece.clone();
        async move {
            if chunk > 0 && !gap.is_zero() {
                sleep(gap).await;
            }
            piece
        }
    });
    Some(Page {
        status: StatusCode::OK,
        length: None,
        pieces: pieces.boxed(),
    })
}

fn fill(bytes: u64) -> Option<Bytes> {
    let length = usize::try_from(bytes).ok().filter(|_| bytes <= MAX_BYTES)?;
    Some(vec![b'x'; length].into())
}

/// Takes a body, however long, and says how long it was.
async fn sink(mut body: Incoming) -> Page {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return Page::refuse(&error.to_string()),
        }
    }
    Page::ok(format!("{{\"bytes\":{bytes}}}\n"))
}
