//! The HTTP half of a session: WHIP (RFC 9725 §4.2) and WHEP are the same to a client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Client, StatusCode, Url};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCSessionDescription, Registry,
    SettingEngine, register_default_interceptors,
};

/// An HTTP client for sessions with a gateway on this machine.
///
/// # Panics
/// If the system cannot give one.
pub fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("an HTTP client")
}

/// A connection on loopback with the codecs and interceptors that the crate takes by default.
pub(super) async fn connection(
    settings: SettingEngine,
    handler: Arc<dyn PeerConnectionEventHandler>,
) -> anyhow::Result<Arc<dyn PeerConnection>> {
    let mut media = MediaEngine::default();
    media.register_default_codecs()?;
    let interceptors = register_default_interceptors(Registry::new(), &mut media)?;
    let connection = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_setting_engine(settings)
        .with_interceptor_registry(interceptors)
        .with_handler(handler)
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await?;
    Ok(Arc::new(connection))
}

/// A session that the gateway has made.
pub(super) struct Session {
    http: Client,
    url: Url,
    pub(super) connection: Arc<dyn PeerConnection>,
}

impl Session {
    /// Offers what `connection` has been given and applies the answer.
    pub(super) async fn negotiate(
        http: &Client,
        endpoint: &str,
        connection: Arc<dyn PeerConnection>,
    ) -> anyhow::Result<Self> {
        match Self::exchange(http, endpoint, &connection).await {
            Ok(url) => Ok(Self { http: http.clone(), url, connection }),
            Err(error) => {
                connection.close().await?;
                Err(error)
            }
        }
    }

    async fn exchange(http: &Client, endpoint: &str, connection: &Arc<dyn PeerConnection>) -> anyhow::Result<Url> {
        let offer = connection.create_offer(None).await?;
        connection.set_local_description(offer.clone()).await?;
        let request = http.post(endpoint).header("content-type", "application/sdp").body(offer.sdp);
        let response = request.send().await?;
        if response.status() != StatusCode::CREATED {
            bail!("{endpoint} answered {}: {}", response.status(), response.text().await?);
        }
        let location = response.headers().get("location").context("no Location")?.to_str()?;
        let url = response.url().join(location)?;
        let answer = RTCSessionDescription::answer(response.text().await?)?;
        connection.set_remote_description(answer).await?;
        Ok(url)
    }

    /// Ends the session as the protocol asks: DELETE, then the connection.
    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let response = self.http.delete(self.url.clone()).send().await?;
        let status = response.status();
        self.close().await?;
        ensure!(status.is_success(), "DELETE answered {status}");
        Ok(())
    }

    /// Ends the connection without a word over HTTP, with a DTLS alert at best.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        Ok(self.connection.close().await?)
    }
}
