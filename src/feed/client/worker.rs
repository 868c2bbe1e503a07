//! The thread that waits for the service: the main loop never does.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;

use super::{Fetch, FetchError, FetchErrorKind, Request, Response};

/// The main loop's end of the thread. Dropping it ends the thread after its current exchange.
pub struct Worker {
    requests: Sender<Request>,
    results: Receiver<Result<Response, FetchError>>,
    /// An exchange is under way whose result has not been taken yet.
    busy: bool,
}

/// Starts the thread. `waker` is called on it after each result has been put where
/// [`Worker::try_result`] finds it. Call this in the process that will use it: threads do not
/// survive a fork.
///
/// # Errors
/// The system refuses a further thread.
pub fn spawn(mut fetch: Box<dyn Fetch>, waker: Box<dyn Fn() + Send>) -> io::Result<Worker> {
    let (requests, inbox) = mpsc::channel::<Request>();
    let (outbox, results) = mpsc::channel();
    let run = move || {
        while let Ok(request) = inbox.recv() {
            let exchange = AssertUnwindSafe(|| fetch.fetch(&request));
            let result = panic::catch_unwind(exchange).unwrap_or_else(|_| {
                // The panic's own text might hold the request.
                Err(FetchErrorKind::Internal("the HTTP exchange panicked".to_owned()).into())
            });
            if outbox.send(result).is_err() {
                return;
            }
            waker();
        }
    };
    thread::Builder::new()
        .name("apiban feed".to_owned())
        .spawn(run)?;
    Ok(Worker {
        requests,
        results,
        busy: false,
    })
}

impl Worker {
    /// Hands the request to the thread. Requests wait for one another; the engine never has two.
    pub fn start(&mut self, request: Request) {
        // If the thread has ended, the next `try_result` says so.
        let _ = self.requests.send(request);
        self.busy = true;
    }

    /// The result of the request started last, if it has arrived. Never waits.
    pub fn try_result(&mut self) -> Option<Result<Response, FetchError>> {
        if !self.busy {
            return None;
        }
        let result = match self.results.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => {
                Err(FetchErrorKind::Internal("the HTTP thread is gone".to_owned()).into())
            }
        };
        self.busy = false;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Key;

    struct Panics(u32);

    impl Fetch for Panics {
        fn fetch(&mut self, _: &Request) -> Result<Response, FetchError> {
            self.0 += 1;
            assert!(self.0 != 1, "only once");
            Ok(Response::default())
        }
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_goes_on() {
        let (tell, told) = mpsc::channel();
        let waker = Box::new(move || tell.send(()).unwrap());
        let mut worker = spawn(Box::new(Panics(0)), waker).unwrap();
        let request = Request {
            key: Key::new("key").unwrap(),
            after: None,
            allowed: 1,
        };
        assert_eq!(worker.try_result(), None);
        worker.start(request.clone());
        told.recv().unwrap();
        assert!(matches!(
            worker.try_result(),
            Some(Err(FetchError {
                kind: FetchErrorKind::Internal(_),
                ..
            }))
        ));
        worker.start(request);
        told.recv().unwrap();
        assert_eq!(worker.try_result(), Some(Ok(Response::default())));
        assert_eq!(worker.try_result(), None);
    }
}
