//! From a connection to the router and back.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use tower_service::Service;

use super::activity::{Activity, UnderWay};
use super::connection::now;

/// The other end of the connection, among the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct ConnectedFrom(pub IpAddr);

/// The router for one connection.
pub(super) struct ConnectionService {
    pub(super) router: Router,
    pub(super) address: IpAddr,
    pub(super) activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let under_way = self.activity.begin(now());
        request.extensions_mut().insert(ConnectedFrom(self.address));
        // A router is always ready.
        let answering = self.router.clone().call(request);
        Box::pin(async move {
            let response = answering.await?;
            Ok(response.map(|body| Answer { body, _under_way: under_way }))
        })
    }
}

/// An answer's body: the request is under way until it was taken, or given up.
pub(super) struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
