//! A second publisher of a table.

use tableside::identity::Role;

use crate::gateway::{Gateway, MASTER, Session};
use crate::http_support::{ISSUER, ROULETTE, assert_problem, token};

const OFFER: &str = include_str!("../fixtures/offers/obs-publisher.sdp");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_same_subject_publishes_a_published_table() {
    let gateway = Gateway::start().await;
    let first = Session::of(&gateway.publish("roulette", &ROULETTE, OFFER).send().await.unwrap());
    // Another token that is good for the table, too, proves another publisher.
    let refused = gateway.publish("roulette", &MASTER, OFFER).send().await.unwrap();
    assert_problem(refused, 409, "already-published").await;
    // Renewed meanwhile, and signed by a new key of the issuer's for all we know: it is the subject that counts.
    let renewed = token(&ISSUER, "studio-r", Role::Publisher, &["roulette", "blackjack"]);
    assert_ne!(renewed, *ROULETTE);
    let second = Session::of(&gateway.publish("roulette", &renewed, OFFER).send().await.unwrap());
    assert_ne!(second.url, first.url);
    assert_eq!(
        gateway.request("HEAD", &first.url).send().await.unwrap().status(),
        200,
        "until the new one is connected"
    );

    // The right is the new one's alone once the old one has left, and free after both.
    assert_eq!(gateway.delete(&first).await.status(), 200);
    let refused = gateway.publish("roulette", &MASTER, OFFER).send().await.unwrap();
    assert_problem(refused, 409, "already-published").await;
    assert_eq!(gateway.delete(&second).await.status(), 200);
    Session::of(&gateway.publish("roulette", &MASTER, OFFER).send().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_inside_the_process_is_never_replaced() {
    let gateway = Gateway::start().await;
    let refused = gateway.publish("watched", &MASTER, OFFER).send().await.unwrap();
    assert_problem(refused, 409, "already-published").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_demo_no_token_proves_anything() {
    let gateway = Gateway::demo().await;
    Session::of(&gateway.publish("mine", &ROULETTE, OFFER).send().await.unwrap());
    let refused = gateway.publish("mine", &ROULETTE, OFFER).send().await.unwrap();
    assert_problem(refused, 409, "already-published").await;
}
