//! What other processes may ask of a running engine: one JSON object a line, over a Unix socket beside the sensor's.
//!
//! ```text
//!   ─▶ {"inject":{"id":1,"domain":3,"number":17,"registers":["0x0",…],…}}
//!   ◀─ {"id":1,"status":"done","result":131086,"pcpu":0,"sequence":4711,"duration_ns":1800,"memory":"…"}
//!   ─▶ {"reload_rules":{}}                    ◀─ {"rules":12}
//!   ─▶ {"unload_rules":{}}                    ◀─ {"rules":0}
//!   ─▶ {"resume":{}}                          ◀─ {"resumed":true}    (false: it was not stopped)
//!   ─▶ {"status":{}}                          ◀─ {"domains":[…]}
//! ```
//!
//! Whoever may open the socket, which stands in a directory only its owner may enter, may do all of this. A client that
//! sends nonsense, or more than it takes answers for, is cut off; the engine never waits for one.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use hypovisor_event::control::Message;
use hypovisor_event::injection::{Injected, InjectionStatus};
use serde::{Deserialize, Serialize};

pub use wire::{Ended, InjectionRequest, Status};

mod wire;

/// Injections under way in the sensor at a time, of all clients together.
const MAX_UNDER_WAY: usize = 128;
/// Clients at a time.
const MAX_CLIENTS: usize = 16;
/// Longest request in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Answers that a client may leave unread, in bytes.
const MAX_UNREAD_BYTES: usize = 8 << 20;
/// After this an injection is given up: its domain makes no hypercalls, or is gone.
const INJECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make a call in a domain's name.
    Inject(InjectionRequest),
    /// Load the rules again from where they were loaded.
    ReloadRules {},
    /// Judge by no rules, until they are loaded again.
    UnloadRules {},
    /// Let a machine go on that was stopped for a call.
    Resume {},
    /// What is being watched, and how many alerts there were.
    Status {},
}

/// Why a running engine cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The socket.
    #[error("cannot reach the engine: {0}")]
    Io(#[from] io::Error),
    /// The engine is gone.
    #[error("the engine ended before it answered")]
    Closed,
    /// It answered something else.
    #[error("the engine's answer makes no sense: {0}")]
    Answer(#[from] serde_json::Error),
    /// It refused.
    #[error("the engine refused: {0}")]
    Refused(String),
}

/// One that asks.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Requests that wait for the sensor to have room.
    waiting: Vec<InjectionRequest>,
}

/// An injection in the sensor.
#[derive(Debug)]
struct UnderWay {
    client: u64,
    /// The client's name for it.
    id: u64,
    domain: u16,
    deadline: Instant,
}

/// A command that somebody else than the session has to carry out.
#[derive(Debug)]
pub struct Command {
    client: u64,
    /// What is asked.
    pub request: Request,
}

/// The engine's side.
#[derive(Debug)]
pub struct Remote {
    listener: UnixListener,
    clients: HashMap<u64, Client>,
    next_client: u64,
    next_injection: u64,
    under_way: HashMap<u64, UnderWay>,
    commands: Vec<Command>,
}

impl Remote {
    /// Listens at `path`; what an engine before left there is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: HashMap::new(),
            next_client: 0,
            next_injection: 1,
            under_way: HashMap::new(),
            commands: Vec::new(),
        })
    }

    /// Takes requests and sends answers, as far as that goes without waiting. What the sensor is to be told
    /// goes to `tell`.
    pub fn turn(&mut self, mut tell: impl FnMut(Message)) {
        self.accept();
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            if self.serve(id).is_err() {
                self.clients.remove(&id);
            }
        }
        self.start_waiting(&mut tell);
        self.give_up(&mut tell);
        self.clients.retain(|_, client| client.flush().is_ok());
    }

    /// Commands for somebody else, since the last time.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Answers a command.
    pub fn answer(&mut self, command: &Command, answer: &serde_json::Value) {
        if let Some(client) = self.clients.get_mut(&command.client) {
            client.say(answer);
        }
    }

    /// An injection has ended on CPU `pcpu`.
    pub fn ended(&mut self, pcpu: u32, injected: &Injected, duration_ns: u64, memory: &[u8]) {
        let Some(under_way) = self.under_way.remove(&injected.id) else { return };
        let ended = Ended {
            id: under_way.id,
            status: Status::from(injected.status),
            result: (injected.status == InjectionStatus::Done).then_some(injected.result),
            pcpu,
            sequence: injected.sequence,
            duration_ns,
            memory: memory.to_vec(),
        };
        self.say(under_way.client, &ended);
    }

    /// A domain was destroyed: what was to be made in its name is not waited for any longer.
    pub(crate) fn domain_ended(&mut self, domain: u16) {
        let gone: Vec<UnderWay> =
            self.under_way.extract_if(|_, one| one.domain == domain).map(|(_, one)| one).collect();
        for one in gone {
            self.say(one.client, &Ended::without_result(one.id, Status::DomainGone));
        }
        for client in self.clients.values_mut() {
            for request in
                client.waiting.extract_if(.., |request| request.domain == domain).collect::<Vec<_>>()
            {
                client.say(&Ended::without_result(request.id, Status::DomainGone));
            }
        }
    }

    fn say(&mut self, client: u64, answer: &impl Serialize) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.say(answer);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                let client = Client { stream, received: Vec::new(), unsent: Vec::new(), waiting: Vec::new() };
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
            }
        }
    }

    fn serve(&mut self, id: u64) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        // A client that has much under way is read on when that has ended.
        if client.waiting.len() >= MAX_UNDER_WAY {
            return Ok(());
        }
        for request in client.read()? {
            match request {
                Request::Inject(injection) => client.waiting.push(injection),
                request => self.commands.push(Command { client: id, request }),
            }
        }
        Ok(())
    }

    fn start_waiting(&mut self, tell: &mut impl FnMut(Message)) {
        let deadline = Instant::now() + INJECTION_TIMEOUT;
        for (client, state) in &mut self.clients {
            let room = MAX_UNDER_WAY.saturating_sub(self.under_way.len());
            let now = state.waiting.len().min(room);
            for request in state.waiting.drain(..now) {
                let id = self.next_injection;
                self.next_injection += 1;
                let domain = request.domain;
                self.under_way.insert(id, UnderWay { client: *client, id: request.id, domain, deadline });
                tell(Message::Inject(request.into_injection(id)));
            }
        }
    }

    /// Tells those who wait too long. Should the call be made all the same, its end is not told again.
    fn give_up(&mut self, tell: &mut impl FnMut(Message)) {
        if self.under_way.is_empty() {
            return;
        }
        let now = Instant::now();
        let late: Vec<u64> =
            self.under_way.iter().filter(|(_, one)| one.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            tell(Message::CancelInjection { id });
            if let Some(one) = self.under_way.remove(&id) {
                self.say(one.client, &Ended::without_result(one.id, Status::TimedOut));
            }
        }
    }
}

impl Client {
    /// The requests that have come in whole.
    fn read(&mut self) -> io::Result<Vec<Request>> {
        let mut buf = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) if self.received.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => break,
                Ok(len) => self.received.extend_from_slice(&buf[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.received.len() > MAX_LINE_BYTES {
                break;
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(request) => requests.push(request),
                Err(error) => self.say(&serde_json::json!({ "error": error.to_string() })),
            }
        }
        if self.received.len() > MAX_LINE_BYTES { Err(ErrorKind::InvalidData.into()) } else { Ok(requests) }
    }

    fn say(&mut self, answer: &impl Serialize) {
        if serde_json::to_writer(&mut self.unsent, answer).is_ok() {
            self.unsent.push(b'\n');
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.unsent.len() > MAX_UNREAD_BYTES { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

/// A client's side.
#[derive(Debug)]
pub struct Engine {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Engine {
    /// Connects to the engine that listens at `path`.
    ///
    /// # Errors
    /// When nobody does.
    pub fn connect(path: &Path) -> Result<Self, RemoteError> {
        let writer = UnixStream::connect(path)?;
        writer.set_read_timeout(Some(2 * INJECTION_TIMEOUT))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Sends a request; answers come in the order in which things end.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn ask(&mut self, request: &Request) -> Result<(), RemoteError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        Ok(self.writer.write_all(&line)?)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the engine is gone or refuses.
    pub fn answer(&mut self) -> Result<serde_json::Value, RemoteError> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(RemoteError::Closed);
        }
        let answer: serde_json::Value = serde_json::from_str(&line)?;
        match answer.get("error").and_then(serde_json::Value::as_str) {
            Some(error) => Err(RemoteError::Refused(error.to_owned())),
            None => Ok(answer),
        }
    }

    /// Makes one call and waits for its end.
    ///
    /// # Errors
    /// As [`Engine::answer`].
    pub fn inject(&mut self, injection: InjectionRequest) -> Result<Ended, RemoteError> {
        self.ask(&Request::Inject(injection))?;
        Ok(serde_json::from_value(self.answer()?)?)
    }
}
