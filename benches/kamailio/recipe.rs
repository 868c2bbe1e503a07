//! APIBAN's recipe for Kamailio, step by step: http_client, jansson, rtimer, htable.

use apiban_testing::kamailio::{Builder, Kamailio};

/// Seconds between two ticks of the recipe.
pub const TICK: f64 = 300.0;

/// A Kamailio with the recipe instead of our module, asking this service every `tick_ms`.
pub fn builder(api_url: &str, key: &str, tick_ms: u64) -> Builder {
    Kamailio::plain()
        .children(1)
        .without_tcp()
        .memory(128, 32)
        .global("max_while_loops=250")
        .load("htable")
        .load("http_client")
        .load("jansson")
        .load("rtimer")
        .modparam("htable", "htable", "apiban=>size=11;")
        .modparam("htable", "htable", "apibanctl=>size=1;initval=0;")
        .modparam(
            "rtimer",
            "timer",
            format!("name=apiban;interval={}u;mode=1;", tick_ms * 1000),
        )
        .modparam("rtimer", "exec", "timer=apiban;route=APIBAN")
        .routes(&route(api_url, key))
}

/// One page a call: fetch, take apart, store, remember the ID.
fn route(api_url: &str, key: &str) -> String {
    format!(
        r#"route[APIBAN] {{
    $var(apiget) = "{api_url}/{key}/banned";
    if ($sht(apibanctl=>ID) != 0) {{
        $var(apiget) = "{api_url}/{key}/banned/" + $sht(apibanctl=>ID);
    }}
    xlog("L_INFO", "APIBAN: Sending API request to $var(apiget)\n");
    http_client_query("$var(apiget)", "$var(banned)");
    if ($rc != 200) {{
        xlog("L_INFO", "APIBAN: Non 200 response. $var(banned)\n");
        exit;
    }}
    $var(count) = 0;
    jansson_array_size("ipaddress", $var(banned), "$var(size)");
    while ($var(count) < $var(size)) {{
        jansson_get("ipaddress[$var(count)]", $var(banned), "$var(blockaddr)");
        $sht(apiban=>$var(blockaddr)) = 1;
        xlog("L_INFO", "APIBAN: Adding block ipaddress[$var(count)] == $var(blockaddr)\n");
        $var(count) = $var(count) + 1;
    }}
    jansson_get("ID", $var(banned), "$var(apiid)");
    xlog("L_INFO", "APIBAN: New ID is $var(apiid)\n");
    $sht(apibanctl=>ID) = $var(apiid);
}}
"#
    )
}
