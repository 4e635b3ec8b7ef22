// SPDX-License-Identifier: GPL-2.0-only

//! The object store's client: HTTP, by a connection that is kept.

use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Where an object is: `ADDRESS:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    store: SocketAddr,
    path: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let wrong = || format!("{text}: give ADDRESS:PORT/PATH");
        let slash = text.find('/').ok_or_else(wrong)?;
        let (store, path) = text.split_at(slash);
        Ok(Self {
            store: store.parse().map_err(|_| wrong())?,
            path: path.to_owned(),
        })
    }
}

/// A client, with one connection at most.
#[derive(Default)]
pub struct Store {
    kept: Option<(SocketAddr, SendRequest<Full<Bytes>>)>,
}

impl Store {
    /// Gets an object. Fails if the store does not answer, or has none there.
    pub async fn get(&mut self, from: &Place) -> Result<Bytes> {
        self.ask(Method::GET, from, Bytes::new()).await
    }

    /// Puts an object there. Fails if the store does not answer, or does not take it.
    pub async fn put(&mut self, to: &Place, object: Bytes) -> Result<()> {
        self.ask(Method::PUT, to, object).await.map(drop)
    }

    async fn ask(&mut self, method: Method, place: &Place, body: Bytes) -> Result<Bytes> {
        let request = || {
            Request::builder()
                .method(&method)
                .uri(&place.path)
                .header("host", place.store.to_string())
                .body(Full::new(body.clone()))
        };
        let wrong =
            |why: &dyn std::fmt::Display| format!("{method} {}{}: {why}", place.store, place.path);
        let kept = match self.kept.take() {
            Some((store, mut sender)) if store == place.store => {
                let answer = exchange(&mut sender, request()?).await;
                answer.ok().map(|answer| (sender, answer))
            }
            _ => None,
        };
        let (sender, (status, content)) = match kept {
            Some(done) => done,
            // A store may close a connection at any time. Both methods may be repeated.
            None => {
                let mut sender = connect(place.store).await.map_err(|error| wrong(&error))?;
                let answer = exchange(&mut sender, request()?).await;
                (sender, answer.map_err(|error| wrong(&error))?)
            }
        };
        self.kept = Some((place.store, sender));
        if status.is_success() {
            Ok(content)
        } else {
            Err(wrong(&status).into())
        }
    }
}

async fn connect(store: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(store).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_place_is_an_address_and_a_path() {
        let place: Place = "10.0.0.1:9000/a/b".parse().expect("it is one");
        assert_eq!((place.store.port(), place.path.as_str()), (9000, "/a/b"));
        for text in ["10.0.0.1:9000", "10.0.0.1/a", "store:9000/a", ""] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    /// A store that gives each connection so many answers, then closes it without a word.
    #[test]
    fn a_closed_connection_is_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let place = format!("{}/x", listener.local_addr().expect("it is bound"));
        let place: Place = place.parse().expect("it is one");
        let answers = [2, 1, 1];
        let server = thread::spawn(move || {
            for answers in answers {
                let mut stream = listener.accept().expect("a client").0;
                let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
                for _ in 0..answers {
                    while lines
                        .next()
                        .is_some_and(|line| !line.expect("text").is_empty())
                    {}
                    let answer =
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
                    stream
                        .write_all(answer.as_bytes())
                        .expect("the client is there");
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut store = Store::default();
            for _ in 0..answers.iter().sum() {
                assert_eq!(store.get(&place).await.expect("an answer"), "ok");
            }
        });
        server.join().expect("it answered all");
    }
}
