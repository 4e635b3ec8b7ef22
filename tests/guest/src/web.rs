// SPDX-License-Identifier: GPL-2.0-only

//! What real servers do to a flow, by libraries that such servers are made of: HTTP/1.1 with pipelining and
//! HTTP/2 on port 8090, gRPC on port 8091. One thread, which blocks while there is nothing to do.

use std::convert::Infallible;
use std::error::Error;
use std::io;

use futures_util::future::try_join;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Protocol, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::server::socket;
use crate::{grpc, page};

const HTTP_PORT: u16 = 8090;
const GRPC_PORT: u16 = 8091;

/// See the module.
pub struct Server {
    runtime: Runtime,
    http: TcpListener,
    grpc: TcpListener,
}

impl Server {
    /// Opens the ports.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listen = |port| {
            let _inside = runtime.enter();
            let socket = socket(Type::STREAM, Protocol::TCP, port)?;
            TcpListener::from_std(socket.into())
        };
        Ok(Self {
            http: listen(HTTP_PORT)?,
            grpc: listen(GRPC_PORT)?,
            runtime,
        })
    }

    /// Serves for ever.
    pub fn run(self) -> io::Result<()> {
        let http = accept(self.http, |stream| serve(stream, page::answer));
        let grpc = accept(self.grpc, |stream| serve(stream, grpc::answer));
        self.runtime.block_on(try_join(http, grpc)).map(drop)
    }
}

/// Serves each connection in a task of its own.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) -> io::Result<Infallible> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            // The client has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Serves a connection; its first bytes tell HTTP/2 from HTTP/1.
async fn serve<F, B>(stream: TcpStream, answer: fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    // A broken connection concerns its client only.
    let _ = stream.set_nodelay(true);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
