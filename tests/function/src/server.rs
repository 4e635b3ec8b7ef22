// SPDX-License-Identifier: GPL-2.0-only

//! The HTTP server. One thread does everything, and one request at a time.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use form_urlencoded::parse;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::yield_now;

use crate::stage::Stage;
use crate::store::{Place, Store};

const PORT: u16 = 8080;
const NS_PER_S: u64 = 1_000_000_000;

/// Serves for ever. With `spin`, the thread never blocks: while there is nothing to do, be it for lack of requests or
/// because the store has not answered, it asks the kernel for news again and again.
///
/// `ready` is called once, when requests are taken. Fails if the port does.
pub fn run(spin: bool, ready: impl FnOnce()) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        ready();
        if spin {
            // A task that is always ready, so that the runtime looks for events without waiting for one.
            tokio::spawn(async {
                loop {
                    yield_now().await;
                }
            });
        }
        let store = Arc::new(Mutex::new(Store::default()));
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, store.clone()))),
                // The client has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    })
}

async fn serve(stream: TcpStream, store: Arc<Mutex<Store>>) {
    let store = &*store;
    let service =
        service_fn(
            move |request| async move { Ok::<_, Infallible>(answer(&request, store).await) },
        );
    // A broken connection concerns its client only.
    let _ = stream.set_nodelay(true);
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: &Request<Incoming>, store: &Mutex<Store>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/ping") => (StatusCode::OK, "pong\n".to_owned()),
        (&Method::GET, "/steal") => told(steal().map_err(Into::into)),
        (&Method::GET, "/run") => match query.parse::<Run>() {
            Ok(run) => told(run.carry_out(&mut *store.lock().await).await),
            Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        (method, path) => (
            StatusCode::NOT_FOUND,
            format!("{method} {path}: there are GET /ping, /run and /steal\n"),
        ),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

/// As an answer; an error also goes to the console.
fn told(result: Result<String, Box<dyn Error + Send + Sync>>) -> (StatusCode, String) {
    match result {
        Ok(json) => (StatusCode::OK, json),
        Err(error) => {
            eprintln!("{error}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

/// What `/run` is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    stage: Stage,
    from: Place,
    to: Place,
}

impl std::str::FromStr for Run {
    type Err = String;

    fn from_str(query: &str) -> Result<Self, Self::Err> {
        let value = |wanted: &str| {
            let found = parse(query.as_bytes()).find(|(name, _)| name == wanted);
            found
                .map(|(_, value)| value)
                .ok_or_else(|| format!("{wanted} is missing: give stage=, from= and to="))
        };
        Ok(Self {
            stage: value("stage")?.parse()?,
            from: value("from")?.parse()?,
            to: value("to")?.parse()?,
        })
    }
}

impl Run {
    async fn carry_out(&self, store: &mut Store) -> Result<String, Box<dyn Error + Send + Sync>> {
        let input = store.get(&self.from).await?;
        let made = self.stage.run(&input)?;
        let (cpu, length) = (made.cpu.as_nanos(), made.bytes.len());
        store.put(&self.to, made.bytes.into()).await?;
        let taken = input.len();
        Ok(format!(
            "{{\"cpu_ns\":{cpu},\"bytes_in\":{taken},\"bytes_out\":{length}}}\n"
        ))
    }
}

/// What the host had others run in place of this guest, since its boot.
fn steal() -> io::Result<String> {
    let text = fs::read_to_string("/proc/stat")?;
    // cpu user nice system idle iowait irq softirq steal
    let ticks: Option<u64> = text
        .split_whitespace()
        .nth(8)
        .and_then(|field| field.parse().ok());
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/stat: no steal time"))?;
    let ns = ticks * (NS_PER_S / rustix::param::clock_ticks_per_second());
    Ok(format!("{{\"steal_ns\":{ns}}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_be_percent_encoded() {
        let plain = "stage=blur&from=10.0.0.1:9000/a b&to=10.0.0.1:9000/c&x=y".parse::<Run>();
        let encoded =
            "to=10.0.0.1%3A9000%2Fc&stage=%62lur&from=10.0.0.1%3a9000%2Fa%20b".parse::<Run>();
        assert!(plain.is_ok());
        assert_eq!(plain, encoded);
    }

    #[test]
    fn what_is_wrong_with_a_query_is_told() {
        let why = |query: &str| query.parse::<Run>().expect_err("it is wrong");
        assert!(why("stage=blur").contains("from is missing"));
        assert!(why("stage=shrink&from=1.1.1.1:1/a&to=1.1.1.1:1/b").contains("no stage 'shrink'"));
    }

    #[test]
    fn steal_time_is_there() {
        assert!(steal().expect("it is Linux").starts_with("{\"steal_ns\":"));
    }
}
