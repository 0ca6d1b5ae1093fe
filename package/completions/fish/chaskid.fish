# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_chaskid_global_optspecs
    string join \n config= h/help V/version
end

function __fish_chaskid_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_chaskid_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_chaskid_using_subcommand
    set -l cmd (__fish_chaskid_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c chaskid -n "__fish_chaskid_needs_command" -l config -d 'The configuration file' -r -F
complete -c chaskid -n "__fish_chaskid_needs_command" -s h -l help -d 'Print help'
complete -c chaskid -n "__fish_chaskid_needs_command" -s V -l version -d 'Print version'
complete -c chaskid -n "__fish_chaskid_needs_command" -f -a "validate" -d 'Check a configuration file and the files it names, and do nothing else'
complete -c chaskid -n "__fish_chaskid_using_subcommand validate" -s h -l help -d 'Print help'
