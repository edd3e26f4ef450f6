//! What every connector to a bet service owes (`src/bet_service/mod.rs`), one set of tests for all of them: the embedded
//! service, one over HTTP, and one behind a real NATS server. Each runs between a real desk, which counts what was sent
//! and what came of it, and a service whose books say what was taken.

#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod bet_services;
mod foreign;
mod ports;

use bet_services::bench::{Bench, EmbeddedBench};
use bet_services::http::HttpBench;
use bet_services::nats::NatsBench;
use bet_services::{contract, faults, http_only, nats_only};

/// A test for each connector, of a function that takes a bench.
macro_rules! for_each {
    ($($bench:ident: $module:ident { $($test:path => $name:ident),+ $(,)? })+) => {$(
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $test($bench::start().await).await;
                }
            )+
        }
    )+};
}

for_each! {
    EmbeddedBench: embedded {
        contract::every_signal_has_one_outcome => every_signal_has_one_outcome,
        contract::a_key_that_comes_again_is_one_bet => a_key_that_comes_again_is_one_bet,
        contract::the_rounds_of_each_table_come_in_order => the_rounds_of_each_table_come_in_order,
        contract::it_ends_with_the_node => it_ends_with_the_node,
    }
    HttpBench: http {
        contract::every_signal_has_one_outcome => every_signal_has_one_outcome,
        contract::a_key_that_comes_again_is_one_bet => a_key_that_comes_again_is_one_bet,
        contract::the_rounds_of_each_table_come_in_order => the_rounds_of_each_table_come_in_order,
        contract::it_ends_with_the_node => it_ends_with_the_node,
        faults::another_node_knows_nothing_and_there_is_still_one_bet => another_node_knows_nothing_and_there_is_still_one_bet,
        faults::a_slow_service_is_waited_for => a_slow_service_is_waited_for,
        faults::a_late_answer_is_a_second_outcome => a_late_answer_is_a_second_outcome,
        faults::a_hung_service_is_left_alone_until_it_is_back => a_hung_service_is_left_alone_until_it_is_back,
        faults::a_service_that_is_not_there_refuses => a_service_that_is_not_there_refuses,
        faults::one_that_declines_has_taken_nothing => one_that_declines_has_taken_nothing,
        faults::what_cannot_be_read_may_have_been_taken => what_cannot_be_read_may_have_been_taken,
        faults::killed_in_mid_request_and_back => killed_in_mid_request_and_back,
        faults::after_a_reconnect_the_current_round_is_known => after_a_reconnect_the_current_round_is_known,
        http_only::each_attempt_is_named_and_has_the_same_key => each_attempt_is_named_and_has_the_same_key,
        http_only::connections_that_end_after_each_answer_lose_nothing => connections_that_end_after_each_answer_lose_nothing,
        http_only::a_table_that_the_service_does_not_hear_of_holds_up_no_other => a_table_that_the_service_does_not_hear_of_holds_up_no_other,
        http_only::a_stream_that_falls_silent_is_opened_anew => a_stream_that_falls_silent_is_opened_anew,
    }
    NatsBench: nats {
        contract::every_signal_has_one_outcome => every_signal_has_one_outcome,
        contract::a_key_that_comes_again_is_one_bet => a_key_that_comes_again_is_one_bet,
        contract::the_rounds_of_each_table_come_in_order => the_rounds_of_each_table_come_in_order,
        contract::it_ends_with_the_node => it_ends_with_the_node,
        faults::another_node_knows_nothing_and_there_is_still_one_bet => another_node_knows_nothing_and_there_is_still_one_bet,
        faults::a_slow_service_is_waited_for => a_slow_service_is_waited_for,
        faults::a_late_answer_is_a_second_outcome => a_late_answer_is_a_second_outcome,
        faults::a_hung_service_is_left_alone_until_it_is_back => a_hung_service_is_left_alone_until_it_is_back,
        faults::a_service_that_is_not_there_refuses => a_service_that_is_not_there_refuses,
        faults::one_that_declines_has_taken_nothing => one_that_declines_has_taken_nothing,
        faults::what_cannot_be_read_may_have_been_taken => what_cannot_be_read_may_have_been_taken,
        faults::killed_in_mid_request_and_back => killed_in_mid_request_and_back,
        faults::after_a_reconnect_the_current_round_is_known => after_a_reconnect_the_current_round_is_known,
        nats_only::the_server_restarts_in_mid_request => the_server_restarts_in_mid_request,
        nats_only::a_node_that_is_started_first_finds_the_server_later => a_node_that_is_started_first_finds_the_server_later,
        nats_only::a_table_is_spoken_for_on_its_own_subject_alone => a_table_is_spoken_for_on_its_own_subject_alone,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_over_tls_with_a_certificate_of_the_nodes_own() {
    http_only::over_tls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_over_a_connection_that_falls_silent() {
    http_only::a_silent_connection_over_http2_is_given_up_soon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_without_the_right_certificates() {
    nats_only::strangers_get_no_connection().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_over_tls_stays_there() {
    nats_only::nobody_is_led_to_a_server_without_tls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_over_tls_with_a_certificate_of_the_nodes_own_and_a_password() {
    nats_only::over_tls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_with_a_credentials_file() {
    nats_only::with_credentials().await;
}
