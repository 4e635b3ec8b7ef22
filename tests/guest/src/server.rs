// SPDX-License-Identifier: GPL-2.0-only

//! One event loop, for one vCPU: HTTP on port 8080, UDP echo on port 8081, over IPv4 and IPv6.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::{Answer, Parsed, answer};

const HTTP_PORT: u16 = 8080;
const ECHO_PORT: u16 = 8081;
const BACKLOG: i32 = 128;
const HTTP: Token = Token(usize::MAX - 1);
const ECHO: Token = Token(usize::MAX - 2);

/// What a server does while there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It gives the CPU back.
    Block,
    /// It asks again and again, as servers tuned for latency do.
    Busy,
}

/// See the module.
pub struct Server {
    poll: Poll,
    http: TcpListener,
    echo: UdpSocket,
    connections: Slab<Connection>,
    /// Answers that have to wait: when, and for which connection.
    late: BinaryHeap<Reverse<(Instant, usize)>>,
    wait: Wait,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// An answer that has to wait, and until when.
    late: Option<(Instant, Answer)>,
    close: bool,
}

impl Server {
    /// Opens the ports; several servers share them.
    pub fn new(wait: Wait) -> io::Result<Self> {
        let mut http =
            TcpListener::from_std(socket(Type::STREAM, Protocol::TCP, HTTP_PORT)?.into());
        let mut echo = UdpSocket::from_std(socket(Type::DGRAM, Protocol::UDP, ECHO_PORT)?.into());
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut http, HTTP, Interest::READABLE)?;
        poll.registry()
            .register(&mut echo, ECHO, Interest::READABLE)?;
        Ok(Self {
            poll,
            http,
            echo,
            connections: Slab::new(),
            late: BinaryHeap::new(),
            wait,
        })
    }

    /// Serves for ever.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        loop {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    HTTP => self.accept()?,
                    ECHO => self.reflect()?,
                    Token(id) => self.step(id),
                }
            }
            self.release();
        }
    }

    fn patience(&self) -> Option<Duration> {
        match self.wait {
            Wait::Busy => Some(Duration::ZERO),
            Wait::Block => {
                let Reverse((when, _)) = self.late.peek()?;
                Some(when.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.http.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client has gone meanwhile.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let id = entry.key();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(id), interest)?;
            entry.insert(Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                late: None,
                close: false,
            });
            self.step(id);
        }
    }

    fn reflect(&mut self) -> io::Result<()> {
        let mut buffer = [0; 65536];
        loop {
            match self.echo.recv_from(&mut buffer) {
                // An answer that cannot be sent is one that is lost, as any datagram can be.
                Ok((length, from)) => drop(self.echo.send_to(&buffer[..length], from)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // What an ICMP error reported.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads, answers and writes as far as connection `id` can go.
    fn step(&mut self, id: usize) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match connection.step() {
            Ok(Next::Wait) => {}
            Ok(Next::Late(when)) => self.late.push(Reverse((when, id))),
            // A broken connection concerns its client only.
            Ok(Next::Done) | Err(_) => drop(self.connections.remove(id)),
        }
    }

    /// Sends the late answers whose time has come.
    fn release(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((when, id))) = self.late.peek() {
            if when > now {
                return;
            }
            self.late.pop();
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            // The connection may be another one by now.
            if let Some((_, answer)) = connection.late.take_if(|(due, _)| *due <= now) {
                connection.send(answer);
                self.step(id);
            }
        }
    }
}

enum Next {
    Wait,
    Late(Instant),
    Done,
}

impl Connection {
    fn step(&mut self) -> io::Result<Next> {
        let ended = self.receive()?;
        loop {
            while !self.output.is_empty() {
                match self.stream.write(&self.output) {
                    Ok(written) => drop(self.output.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Wait),
                    Err(error) => return Err(error),
                }
            }
            if self.close {
                return Ok(Next::Done);
            }
            if self.late.is_some() {
                return Ok(if ended { Next::Done } else { Next::Wait });
            }
            match answer(&self.input) {
                Parsed::Partial if ended => return Ok(Next::Done),
                Parsed::Partial => return Ok(Next::Wait),
                Parsed::Request { used, answer } => {
                    self.input.drain(..used);
                    if answer.delay.is_zero() {
                        self.send(answer);
                    } else {
                        let when = Instant::now() + answer.delay;
                        self.late = Some((when, answer));
                        return Ok(Next::Late(when));
                    }
                }
            }
        }
    }

    /// Takes what has arrived; true at the end of the stream.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, answer: Answer) {
        self.output = answer.bytes;
        self.close = answer.close;
    }
}

/// A socket on a port of every address.
pub fn socket(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
