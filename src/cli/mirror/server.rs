//! The HTTP server: one thread, every limit explicit.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::answer::{self, Answer, Question};
use super::limit::Limit;
use super::{read, Common};
use crate::cli::exit::Failure;
use crate::cli::messages;
use crate::quote::plain;

/// Connections at one time; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 1_024;
/// A client must have sent its headers within this time, and an idle connection ends after it.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A request's body must have come within this time.
const BODY_TIME: Duration = Duration::from_secs(5);
/// No connection lives longer: a client that reads a byte a second is cut off.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Longest headers of a request, in bytes.
const MAX_HEADERS: usize = 16 << 10;
/// Most headers of a request.
const MOST_HEADERS: usize = 64;
/// Longest body of a request, in bytes: the interface's have fewer than 100.
const MAX_BODY: usize = 4 << 10;
/// After an error of accept, for example too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `listen` and starts the thread; returns where it listens.
pub fn start(
    listen: SocketAddr,
    common: Arc<Common>,
    limit: u32,
    window: u32,
) -> Result<SocketAddr, Failure> {
    let problem = |error: std::io::Error| {
        Failure::trouble(format!(
            "--listen {listen}: {}; name another address or port",
            plain(&error)
        ))
    };
    let listener = std::net::TcpListener::bind(listen).map_err(problem)?;
    listener.set_nonblocking(true).map_err(problem)?;
    let local = listener.local_addr().map_err(problem)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(problem)?;
    let limit = Limit::new(limit, Duration::from_secs(window.into()), Instant::now());
    std::thread::Builder::new()
        .name("apiban mirror".to_owned())
        .spawn(move || {
            let tasks = tokio::task::LocalSet::new();
            runtime.block_on(tasks.run_until(serve(listener, common, limit)));
        })
        .map_err(problem)?;
    Ok(local)
}

async fn serve(listener: std::net::TcpListener, common: Arc<Common>, limit: Limit) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return messages::error(&format!("the mirror cannot listen: {error}")),
    };
    let limit = Rc::new(RefCell::new(limit));
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, client)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (common, limit) = (Arc::clone(&common), Rc::clone(&limit));
        tokio::task::spawn_local(async move {
            let connection = connection(stream, client, common, limit);
            // What a client does wrong ends its own connection only.
            let _ = timeout(CONNECTION_TIME, connection).await;
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    common: Arc<Common>,
    limit: Rc<RefCell<Limit>>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let (common, limit) = (Arc::clone(&common), Rc::clone(&limit));
        async move {
            let answer = respond(request, client, &common, &limit).await;
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADERS)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    client: SocketAddr,
    common: &Common,
    limit: &RefCell<Limit>,
) -> Answer {
    let counted = limit.borrow_mut().count(client.ip(), Instant::now());
    if let Err(wait) = counted {
        return answer::rate_limited(wait.as_secs().max(1));
    }
    let (head, body) = request.into_parts();
    if !matches!(head.method, Method::GET | Method::HEAD | Method::POST) {
        return answer::plain(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD or POST\n");
    }
    let body = match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return too_large(),
        Err(_) => return answer::plain(StatusCode::REQUEST_TIMEOUT, "too slow\n"),
    };
    let question = Question {
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        body: &body,
    };
    let snapshot = common.snapshot();
    let keys = read(&common.keys);
    answer::answer(&question, &keys, common.dataset, snapshot.as_deref())
}

fn too_large() -> Response<Bytes> {
    answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n")
}
