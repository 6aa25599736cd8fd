// Programs of the images that run on the one-node cluster. The standard library is enough for them.
module leanserve.dev/tools/images

go 1.26.0
