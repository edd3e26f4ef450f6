//! Connections.

use std::io;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tracing::debug;

/// Serves `router` on `listener` until `stop` completes, then lets requests that are being answered finish.
///
/// # Errors
/// None at present: a connection that fails concerns only itself.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // An answer is one small write: waiting for more would only delay the player's first frame.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
