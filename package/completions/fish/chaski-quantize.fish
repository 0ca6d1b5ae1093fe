complete -c chaski-quantize -l random -d 'In place of an input: random weights in the shape of this Hugging Face config.json, symmetric, for measurements' -r -F
complete -c chaski-quantize -l seed -d 'The same seed makes the same random weights' -r
complete -c chaski-quantize -l tokenizer -d 'Give the random model the tokenizer files of this folder (default: a token for each byte, and padding)' -r -F
complete -c chaski-quantize -s o -l output -d 'The model folder to write: whole, or not at all' -r -F
complete -c chaski-quantize -l scheme -d 'How zero points are chosen' -r -f -a "auto\t'Take over Q4_0 and Q4_1 tensors as they are; of the others, embedding and head asymmetric, the rest symmetric'
symmetric\t'Zero point 8 everywhere: the smallest and fastest'
asymmetric\t'An integer zero point per block: 3 % larger, closer to the source'"
complete -c chaski-quantize -l embedding-bits -d 'Bits of the token embedding and the output head. 8 is worth its size for models under about a billion weights: they suffer visibly from 4 bits there, and up to a fifth of them is the embedding' -r -f -a "4\t'As the layers have'
8\t'Nearly exact, and exact where the source is Q8_0'"
complete -c chaski-quantize -l context -d 'Cap the context length to so many tokens (default: the model\'s own)' -r
complete -c chaski-quantize -l threads -d 'Threads that quantise (default: one per processor)' -r
complete -c chaski-quantize -l force -d 'Replace a model folder that is there already'
complete -c chaski-quantize -s q -l quiet -d 'Show neither progress nor summary'
complete -c chaski-quantize -s h -l help -d 'Print help (see more with \'--help\')'
complete -c chaski-quantize -s V -l version -d 'Print version'
