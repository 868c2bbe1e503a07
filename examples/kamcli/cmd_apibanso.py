"""kamcli apibanso: the commands of the Kamailio module apiban.so.

Copy this file into kamcli's own folder of commands, as user root:

    cp cmd_apibanso.py /usr/lib/python3/dist-packages/kamcli/commands/

It is not named cmd_apiban.py: kamcli 3 has a command of that name, which asks the service and knows nothing of the
module. This one works with kamcli 2.0 and 3.0.
"""

import click
from kamcli.cli import pass_context
from kamcli.iorpc import command_ctl


@click.group('apibanso', short_help='Ask and command the module apiban.so')
@pass_context
def cli(ctx):
    """Ask and command the module apiban.so

    \b
    Examples:
        kamcli apibanso check 192.0.2.7
        kamcli apibanso block 192.0.2.7 3600 "scans extensions"
        kamcli apibanso list local
    """


def call(ctx, command, *params):
    """One RPC command; what was not given is left out."""
    command_ctl(ctx, 'apiban.' + command, [str(p) for p in params if p is not None])


@cli.command('status', short_help='The list, the bans, the firewall, the cluster')
@pass_context
def status(ctx):
    """Show the state of the list, the bans, the firewall and the cluster"""
    call(ctx, 'status')


@cli.command('check', short_help='Is an address banned, by whom, until when?')
@click.argument('ip', metavar='<ip>')
@pass_context
def check(ctx, ip):
    """Tell whether an address is banned, by whom and until when"""
    call(ctx, 'check', ip)


@cli.command('block', short_help='Ban an address or a prefix')
@click.argument('ip', metavar='<ip>')
@click.argument('ttl', metavar='[<seconds>]', required=False, type=click.IntRange(min=1))
@click.argument('reason', metavar='[<reason>]', required=False)
@pass_context
def block(ctx, ip, ttl, reason):
    """Ban an address or a prefix; without seconds for block_ttl"""
    call(ctx, 'block', ip, ttl, reason)


@cli.command('unblock', short_help='Lift a ban')
@click.argument('ip', metavar='<ip>')
@pass_context
def unblock(ctx, ip):
    """Lift a ban, on every node of the cluster"""
    call(ctx, 'unblock', ip)


@cli.command('list', short_help='The bans')
@click.argument('part', metavar='[feed|local|peer|all]', default='all',
                type=click.Choice(['feed', 'local', 'peer', 'all']))
@click.option('limit', '--limit', type=click.IntRange(min=1), default=100, help='How many (default: 100)')
@click.option('offset', '--offset', type=click.IntRange(min=0), default=0, help='After how many (default: 0)')
@pass_context
def list_bans(ctx, part, limit, offset):
    """List bans"""
    call(ctx, 'list', part, limit, offset)


@cli.command('top', short_help='The banned sources with most hits')
@click.argument('count', metavar='[<n>]', required=False, type=click.IntRange(min=1))
@pass_context
def top(ctx, count):
    """Show the banned sources with most hits, and the networks with most bans"""
    call(ctx, 'top', count)


@cli.command('reload', short_help='Read key and trust files again, fetch the whole list')
@click.option('force', '--force', is_flag=True, help='Believe a list that is suspiciously short')
@pass_context
def reload(ctx, force):
    """Read key and trust files again, and fetch the whole list"""
    call(ctx, 'reload', 'force' if force else None)


@cli.command('flush', short_help='Empty a table of bans')
@click.argument('part', metavar='<feed|local|peer>', type=click.Choice(['feed', 'local', 'peer']))
@click.argument('node', metavar='[<uri>]', required=False)
@pass_context
def flush(ctx, part, node):
    """Empty a table of bans, and the firewall with it; after peer a node's URI: its bans alone"""
    call(ctx, 'flush', part, node)


@cli.command('nodes', short_help='The nodes of the cluster')
@pass_context
def nodes(ctx):
    """Show the nodes of the cluster, this one first"""
    call(ctx, 'nodes')


@cli.group('trust', short_help='Who is never banned')
@pass_context
def trust(ctx):
    """List, add and remove trust that was given by command"""


@trust.command('list', short_help='Everybody who is trusted, and why')
@pass_context
def trust_list(ctx):
    """List everybody who is trusted, and why"""
    call(ctx, 'trust_list')


@trust.command('add', short_help='Trust an address or a prefix')
@click.argument('ip', metavar='<ip>')
@click.argument('ttl', metavar='[<seconds>]', required=False, type=click.IntRange(min=0))
@click.argument('comment', metavar='[<comment>]', required=False)
@pass_context
def trust_add(ctx, ip, ttl, comment):
    """Trust an address or a prefix, and lift its ban"""
    call(ctx, 'trust_add', ip, ttl, comment)


@trust.command('del', short_help='Take that trust back')
@click.argument('ip', metavar='<ip>')
@pass_context
def trust_del(ctx, ip):
    """Take trust back that was given by command"""
    call(ctx, 'trust_del', ip)
