"""What tests/tools/monitoring asks of the dashboard.

    monitoring.py schema FILE                compares with Grafana's schema
    monitoring.py queries FILE URL [SVG]     runs every query, and draws them
"""

import json
import sys
import time
import urllib.parse
import urllib.request


def unknown(given, known, place="dashboard"):
    """What stands in `given` and does not come back from the schema."""
    if isinstance(given, dict):
        for name, value in given.items():
            if isinstance(known, dict) and name in known:
                yield from unknown(value, known[name], f"{place}.{name}")
            elif value is not None:
                yield f"{place}.{name}"
    elif isinstance(given, list):
        for index, value in enumerate(given):
            if isinstance(known, list) and index < len(known):
                yield from unknown(value, known[index], f"{place}[{index}]")
            else:
                yield f"{place}[{index}]"
    elif given != known:
        yield f"{place}: {given!r} comes back as {known!r}"


def schema(path):
    """Fails if Grafana's schema does not know a field, or changes a value."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(given)))))
    problems = list(unknown(given, known))
    if problems:
        sys.exit("Grafana's schema does not know:\n" + "\n".join(problems))
    print("the schema knows every field")


def ask(url, path, **parameters):
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]


def queries(path, url, picture=None):
    """Runs every query of every panel; fails if one finds nothing, or if the first panel sees none of the drops."""
    with open(path, encoding="utf-8") as file:
        panels = json.load(file)["panels"]
    found, empty, drops = [], [], 0.0
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "6s").replace("$instance", ".*").replace("[1d]", "[8s]")
            result = ask(url, "query", query=expression)
            print(f"{panel['title']}: {len(result)} series, {result[0]['value'][1] if result else 'nothing'}")
            if not result:
                empty.append(f"{panel['title']}: {target['expr']}")
            found.append((panel, target, expression))
            if panel is panels[0]:
                drops += sum(float(series["value"][1]) for series in result)
    if not drops:
        sys.exit(f"packets were dropped, and {panels[0]['title']!r} shows none")
    if empty:
        sys.exit("these queries find nothing:\n" + "\n".join(empty))
    if picture:
        draw(found, url, picture)


def draw(found, url, picture):
    """One small plot for each panel, as Grafana would show it."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plot

    titles = list(dict.fromkeys(panel["title"] for panel, _, _ in found if panel["type"] != "table"))
    figure, axes = plot.subplots(3, 3, figsize=(12, 7.5), constrained_layout=True)
    end = time.time()
    for title, axis in zip(titles, axes.flat):
        for panel, target, expression in found:
            if panel["title"] != title:
                continue
            for series in ask(url, "query_range", query=expression, start=end - 14, end=end, step=1):
                points = [(float(at) - end, float(value)) for at, value in series["values"]]
                axis.plot(*zip(*points), label=target["legendFormat"])
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper left")
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    {"schema": schema, "queries": queries}[sys.argv[1]](*sys.argv[2:])
