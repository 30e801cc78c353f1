//! One way to several servers of a cluster: the one in use until it cannot be reached, then the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::{Transport, TransportError, WatchStream};

/// A [`Transport`] over several others.
///
/// A read that reaches nobody is asked of the next at once. A write may have been done by whoever fell silent over it: its
/// caller is told so, and its next request goes to the next.
pub struct Several {
    servers: Vec<Arc<dyn Transport>>,
    /// Counts on; the rest says who is in use.
    at: AtomicUsize,
}

impl Several {
    /// Over these, beginning with the first. There is at least one.
    pub fn new(servers: Vec<Arc<dyn Transport>>) -> Self {
        assert!(!servers.is_empty(), "somebody has to be asked");
        Self { servers, at: AtomicUsize::new(0) }
    }

    fn current(&self) -> (usize, &Arc<dyn Transport>) {
        let at = self.at.load(Ordering::Relaxed);
        (at, &self.servers[at % self.servers.len()])
    }

    /// Goes on to the next, unless somebody did already.
    fn leave(&self, at: usize) {
        // Whoever comes second finds it done.
        let _ = self.at.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[async_trait]
impl Transport for Several {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let mut left = if request.method().is_safe() { self.servers.len() } else { 1 };
        loop {
            let (at, server) = self.current();
            left -= 1;
            match server.call(request.clone()).await {
                Err(TransportError::Unreachable(why)) => {
                    self.leave(at);
                    if left == 0 {
                        return Err(TransportError::Unreachable(why));
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn watch(&self, request: Request<()>) -> Result<WatchStream, TransportError> {
        let mut left = self.servers.len();
        loop {
            let (at, server) = self.current();
            left -= 1;
            match server.watch(request.clone()).await {
                Err(TransportError::Unreachable(why)) => {
                    self.leave(at);
                    if left == 0 {
                        return Err(TransportError::Unreachable(why));
                    }
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures_util::StreamExt;

    use super::*;

    /// Answers with its name, while it is up.
    struct Named(&'static str, AtomicBool);

    #[async_trait]
    impl Transport for Named {
        async fn call(&self, _: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
            match self.1.load(Ordering::Relaxed) {
                true => Ok(Response::new(Bytes::from_static(self.0.as_bytes()))),
                false => Err(TransportError::Unreachable("down".into())),
            }
        }

        async fn watch(&self, _: Request<()>) -> Result<WatchStream, TransportError> {
            match self.1.load(Ordering::Relaxed) {
                true => Ok(futures_util::stream::empty().boxed()),
                false => Err(TransportError::Unreachable("down".into())),
            }
        }
    }

    async fn ask(several: &Several, method: &str) -> String {
        let request = Request::builder().method(method).uri("/").body(Bytes::new()).expect("a request");
        match several.call(request).await {
            Ok(answer) => String::from_utf8_lossy(answer.body()).into_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_left_for_the_next() {
        let [one, other] = ["one", "other"].map(|name| Arc::new(Named(name, AtomicBool::new(true))));
        let several = Several::new(vec![one.clone(), other.clone()]);
        assert_eq!(ask(&several, "GET").await, "one");
        one.1.store(false, Ordering::Relaxed);
        assert_eq!(ask(&several, "GET").await, "other");
        one.1.store(true, Ordering::Relaxed);
        assert_eq!(ask(&several, "GET").await, "other", "who answers is stayed with");
        other.1.store(false, Ordering::Relaxed);
        assert_eq!(ask(&several, "POST").await, "no answer from the API server", "a write is not sent twice");
        assert_eq!(ask(&several, "POST").await, "one");
        one.1.store(false, Ordering::Relaxed);
        assert_eq!(ask(&several, "GET").await, "no answer from the API server", "everybody is asked once");
        other.1.store(true, Ordering::Relaxed);
        let watch = Request::builder().uri("/?watch=true").body(()).expect("a request");
        assert!(several.watch(watch).await.is_ok());
    }
}
