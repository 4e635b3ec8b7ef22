// SPDX-License-Identifier: GPL-2.0-only

//! The object store: GET and PUT over HTTP, in memory.

use std::collections::HashMap;
use std::io;
use std::net;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sleepy_host::Result;
use tokio::net::{TcpListener, TcpStream};

use crate::network;

/// Where it listens.
pub const PORT: u16 = 9000;

type Objects = Arc<Mutex<HashMap<String, Bytes>>>;

/// A running one. It ends with the program.
pub struct Store {
    objects: Objects,
}

impl Store {
    /// Starts it in its network namespace.
    pub fn start() -> Result<Self> {
        // A socket stays where the thread was that made it.
        let listener = thread::spawn(|| -> Result<_> {
            network::enter()?;
            Ok(net::TcpListener::bind((network::ADDRESS, PORT))?)
        })
        .join()
        .map_err(|_| "the object store panicked")??;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let objects = Objects::default();
        let theirs = objects.clone();
        thread::spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, theirs)) {
                eprintln!("the object store has ended: {error}");
            }
        });
        Ok(Self { objects })
    }

    /// The address of an object, for clients.
    pub fn address(key: &str) -> String {
        format!("{}:{PORT}/{key}", network::ADDRESS)
    }

    /// Puts an object there.
    pub fn put(&self, key: &str, object: Vec<u8>) {
        lock(&self.objects).insert(format!("/{key}"), object.into());
    }

    /// Takes an object away, and returns it.
    pub fn take(&self, key: &str) -> Option<Bytes> {
        lock(&self.objects).remove(&format!("/{key}"))
    }
}

fn lock(objects: &Objects) -> MutexGuard<'_, HashMap<String, Bytes>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: net::TcpListener, objects: Objects) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, objects.clone()));
    }
}

async fn connection(stream: TcpStream, objects: Objects) {
    let service = service_fn(|request| answer(request, &objects));
    // A client that is gone needs no answer.
    let _ = stream.set_nodelay(true);
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    objects: &Objects,
) -> std::result::Result<Response<Full<Bytes>>, hyper::Error> {
    let key = request.uri().path().to_owned();
    let (status, object) = match *request.method() {
        Method::GET => {
            let object = lock(objects).get(&key).cloned();
            let missing = (StatusCode::NOT_FOUND, Bytes::new());
            object.map_or(missing, |object| (StatusCode::OK, object))
        }
        Method::PUT => {
            let object = request.into_body().collect().await?.to_bytes();
            lock(objects).insert(key, object);
            (StatusCode::CREATED, Bytes::new())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
    };
    let mut response = Response::new(Full::new(object));
    *response.status_mut() = status;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    /// Connections that come at once and are kept are all served.
    #[test]
    fn a_kept_connection_keeps_nobody_waiting() {
        let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let objects = Objects::default();
        lock(&objects).insert("/key".into(), Bytes::from_static(b"object"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        thread::spawn(move || runtime.block_on(serve(listener, objects)));
        let mut clients: Vec<_> = (0..150)
            .map(|_| net::TcpStream::connect(address).expect("a connection"))
            .collect();
        for client in &mut clients {
            client
                .write_all(b"GET /key HTTP/1.1\r\nhost: store\r\n\r\n")
                .expect("it listens");
        }
        for client in &mut clients {
            client
                .set_read_timeout(Some(Duration::from_secs(60)))
                .expect("a socket");
            let mut answer = [0; 512];
            let length = client.read(&mut answer).expect("an answer");
            assert!(answer[..length].ends_with(b"object"));
        }
    }
}
