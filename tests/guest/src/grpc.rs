// SPDX-License-Identifier: GPL-2.0-only

//! gRPC without a schema. `/guest.Guest/Ask` takes messages that are paths of pages, and answers each with the pieces of
//! its page as messages: by this one method a client makes unary, server-streaming and two-way calls.

use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use crate::page::page;

const METHOD: &str = "/guest.Guest/Ask";

/// Answers a call.
pub async fn answer(request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() != METHOD {
        return Status::unimplemented(format!("there is only {METHOD}")).into_http();
    }
    Grpc::new(Plain).streaming(Ask, request).await
}

struct Ask;

impl StreamingService<Bytes> for Ask {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner().then(messages).flatten().boxed();
        Box::pin(async {
            let mut messages = messages.peekable();
            // As from a server of unary calls: no headers before there is something to say.
            Pin::new(&mut messages).peek().await;
            Ok(tonic::Response::new(messages.boxed()))
        })
    }
}

/// The messages that answer one.
async fn messages(asked: Result<Bytes, Status>) -> BoxStream<'static, Result<Bytes, Status>> {
    let fail = |status| stream::iter([Err(status)]).boxed();
    let asked = match asked {
        Ok(asked) => asked,
        Err(status) => return fail(status),
    };
    let Ok(target) = std::str::from_utf8(&asked) else {
        return fail(Status::invalid_argument("a message is the path of a page"));
    };
    let page = page(target).await;
    match page.status {
        StatusCode::OK => page.pieces.map(Ok).boxed(),
        status => fail(Status::invalid_argument(format!("{target}: {status}"))),
    }
}

/// Messages that are bytes and nothing else.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
