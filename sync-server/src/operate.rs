//! What an operator watches: `/metrics` in OpenMetrics text and `/health`, over plain HTTP on a local port.

use std::{sync::Arc, time::Duration};

use ebb_protocol::wire::Refusal;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    connection::{Shared, stops},
    log::LogError,
};

/// Requests to the metrics port at a time: one scraper and somebody who looks.
const REQUESTS_MAX: usize = 16;
/// A request that takes longer is dropped.
const REQUEST_MS_MAX: u64 = 5_000;

/// The server's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Family<Transport, Counter>,
    refusals: Family<Reason, Counter>,
    commits: Counter,
    commit_failures: Counter,
    appended: Counter,
    group_envelopes: Histogram,
    commit_seconds: Histogram,
    pub(crate) sessions: Gauge,
    pub(crate) frames_in: Counter,
    pub(crate) frames_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) acked: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transport {
    transport: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ebb");
        // Groups of 1 to 4,096 envelopes; commits of 0.1 ms to 3.3 s.
        let group_envelopes = Histogram::new((0..13).map(|power| f64::from(1 << power)));
        let commit_seconds = Histogram::new((0..16).map(|power| 0.0001 * f64::from(1 << power)));
        let metrics = Self {
            connections: Family::default(),
            refusals: Family::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            appended: Counter::default(),
            sessions: Gauge::default(),
            frames_in: Counter::default(),
            frames_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            acked: Counter::default(),
            group_envelopes,
            commit_seconds,
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register(
            "connections",
            "Connections that came through their handshake",
            m.connections.clone(),
        );
        registry.register("refusals", "What was refused, by reason", m.refusals.clone());
        registry.register("commits", "Groups made durable", m.commits.clone());
        registry.register("commit_failures", "Groups or parts that were not", m.commit_failures.clone());
        registry.register("appended_envelopes", "Envelopes made durable", m.appended.clone());
        registry.register("acked_envelopes", "Envelopes acknowledged, again included", m.acked.clone());
        registry.register("group_envelopes", "Envelopes in a group", m.group_envelopes.clone());
        registry.register("commit_seconds", "How long a commit takes", m.commit_seconds.clone());
        registry.register("sessions", "Live sessions", m.sessions.clone());
        registry.register("frames_in", "Frames that came", m.frames_in.clone());
        registry.register("frames_out", "Frames that went", m.frames_out.clone());
        registry.register("bytes_in", "Bytes that came, below them TLS", m.bytes_in.clone());
        registry.register("bytes_out", "Bytes that went, below them TLS", m.bytes_out.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    pub(crate) fn connected(&self, transport: &'static str) {
        self.connections.get_or_create(&Transport { transport }).inc();
    }

    pub(crate) fn refused(&self, reason: &Refusal) {
        let reason = match reason {
            Refusal::StaleEpoch => "stale_epoch",
            Refusal::UnknownHead => "unknown_head",
            Refusal::HeadMoved(_) => "head_moved",
            Refusal::Role => "role",
            Refusal::Quota(_) => "quota",
            Refusal::Gap(_) => "gap",
            Refusal::Fork => "fork",
            Refusal::Malformed => "malformed",
            Refusal::Version => "version",
            Refusal::Unregistered => "unregistered",
            Refusal::Unavailable => "unavailable",
        };
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn committed(
        &self,
        envelopes: usize,
        took: Duration,
        result: &Result<Vec<Result<(), LogError>>, LogError>,
    ) {
        match result {
            Ok(parts) if parts.iter().all(Result::is_ok) => {
                self.commits.inc();
                self.appended.inc_by(envelopes as u64);
                self.group_envelopes.observe(envelopes as f64);
                self.commit_seconds.observe(took.as_secs_f64());
            }
            _ => {
                self.commit_failures.inc();
            }
        }
    }

    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }

    /// Envelopes made durable so far.
    #[must_use]
    pub fn appended_count(&self) -> u64 {
        self.appended.get()
    }

    /// Groups made durable so far.
    #[must_use]
    pub fn commit_count(&self) -> u64 {
        self.commits.get()
    }
}

/// Answers requests until the server stops.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stops(&mut stopping) => return,
            accepted = listener.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &shared);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever asked may go away at any time.
            let _ = tokio::time::timeout(Duration::from_millis(REQUEST_MS_MAX), served).await;
            drop(place);
        });
    }
}

fn respond(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            shared.metrics.to_text(),
        ),
        "/health" if shared.storage.is_writable() => (StatusCode::OK, "text/plain", "ok\n".into()),
        "/health" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the log takes no writes\n".into()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "/metrics or /health\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a fixed media type"));
    response
}
