// SPDX-License-Identifier: GPL-2.0-only

//! A page that the guest has to ask somebody else for.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::page::Page;

/// Asks the HTTP server at `to=ADDRESS:PORT` for `path=`, which is the rest of the query, and answers as it does. The
/// request has a body of `bytes=` bytes; none, if that is missing.
pub async fn call(query: &str) -> Page {
    let parts = query
        .strip_prefix("to=")
        .and_then(|rest| rest.split_once("&path="));
    let Some((to, path)) = parts else {
        return Page::refuse("give /call?to=ADDRESS:PORT[&bytes=N]&path=/PATH");
    };
    let (to, bytes) = to.split_once("&bytes=").unwrap_or((to, "0"));
    let (Ok(address), Ok(bytes)) = (to.parse(), bytes.parse()) else {
        return Page::refuse(&format!(
            "{to}, {bytes} bytes: give ADDRESS:PORT and a number"
        ));
    };
    match ask(address, path, bytes).await {
        Ok((status, content)) => Page::new(status, content),
        Err(error) => Page::new(StatusCode::BAD_GATEWAY, format!("{to}: {error}\n")),
    }
}

async fn ask(
    to: SocketAddr,
    path: &str,
    bytes: usize,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", to.to_string())
        .header("connection", "close")
        .body(Full::<Bytes>::from(vec![b'x'; bytes]))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
