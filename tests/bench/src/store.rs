// SPDX-License-Identifier: GPL-2.0-only

//! The object store: GET and PUT over HTTP, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sleepy_host::Result;
use tiny_http::{Method, Request, Response, Server};

use crate::network;

/// Where it listens.
pub const PORT: u16 = 9000;

type Objects = Arc<Mutex<HashMap<String, Arc<Vec<u8>>>>>;

/// A running one. It ends with the program.
pub struct Store {
    objects: Objects,
}

impl Store {
    /// Starts it in its network namespace.
    pub fn start() -> Result<Self> {
        let objects = Objects::default();
        let theirs = objects.clone();
        // The server's own threads are where the one is that starts it.
        let server = thread::spawn(|| {
            network::enter()?;
            Server::http((network::ADDRESS, PORT))
        })
        .join()
        .map_err(|_| "the object store panicked")??;
        thread::spawn(move || {
            for request in server.incoming_requests() {
                // A client that is gone needs no answer.
                let _ = answer(request, &theirs);
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
        lock(&self.objects).insert(format!("/{key}"), Arc::new(object));
    }

    /// Takes an object away, and returns it.
    pub fn take(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        lock(&self.objects).remove(&format!("/{key}"))
    }
}

fn lock(objects: &Objects) -> MutexGuard<'_, HashMap<String, Arc<Vec<u8>>>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut request: Request, objects: &Objects) -> std::io::Result<()> {
    match request.method() {
        Method::Get => {
            let object = lock(objects).get(request.url()).cloned();
            match object {
                Some(object) => {
                    // A client needs to know no other encoding than a length.
                    request.respond(
                        Response::from_data(&object[..]).with_chunked_threshold(usize::MAX),
                    )
                }
                None => request.respond(Response::empty(404)),
            }
        }
        Method::Put => {
            let mut object = Vec::with_capacity(request.body_length().unwrap_or(0));
            request.as_reader().read_to_end(&mut object)?;
            lock(objects).insert(request.url().to_owned(), Arc::new(object));
            request.respond(Response::empty(201))
        }
        _ => request.respond(Response::empty(405)),
    }
}
