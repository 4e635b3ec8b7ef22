// SPDX-License-Identifier: GPL-2.0-only

//! A page that the guest has to ask somebody else for.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::page::Page;

/// Asks the HTTP server at `to=ADDRESS:PORT` for `path=`, which is the rest of the query, and answers as it does.
pub async fn call(query: &str) -> Page {
    let parts = query
        .strip_prefix("to=")
        .and_then(|rest| rest.split_once("&path="));
    let Some((to, path)) = parts else {
        return Page::refuse("give /call?to=ADDRESS:PORT&path=/PATH");
    };
    let Ok(address) = to.parse() else {
        return Page::refuse(&format!("{to}: give ADDRESS:PORT"));
    };
    match get(address, path).await {
        Ok((status, content)) => Page::new(status, content),
        Err(error) => Page::new(StatusCode::BAD_GATEWAY, format!("{to}: {error}\n")),
    }
}

async fn get(
    to: SocketAddr,
    path: &str,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", to.to_string())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
