func.func @row_1(%x: tensor<1x576xf32>, %w: tensor<1536x576xi8>, %s: tensor<1536xf32>) -> tensor<1x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<1x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<1x1536xf32>) -> tensor<1x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction"]} ins(%x, %w : tensor<1x576xf32>, tensor<1536x576xi8>) outs(%f : tensor<1x1536xf32>) { ^bb0(%a: f32, %b: i8, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %g = arith.addf %o, %d : f32
  linalg.yield %g : f32 } -> tensor<1x1536xf32>
  %q = linalg.generic {indexing_maps = [affine_map<(a,b)->(a,b)>, affine_map<(a,b)->(b)>, affine_map<(a,b)->(a,b)>], iterator_types = ["parallel","parallel"]} ins(%r, %s : tensor<1x1536xf32>, tensor<1536xf32>) outs(%e : tensor<1x1536xf32>) { ^bb0(%i: f32, %t: f32, %o: f32): %c = arith.mulf %i, %t : f32
   linalg.yield %c : f32 } -> tensor<1x1536xf32>
  return %q : tensor<1x1536xf32>
}
func.func @f32_1(%x: tensor<1x576xf32>, %w: tensor<1536x576xf32>) -> tensor<1x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<1x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<1x1536xf32>) -> tensor<1x1536xf32>
  %r = linalg.matmul indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>] ins(%x, %w : tensor<1x576xf32>, tensor<1536x576xf32>) outs(%f : tensor<1x1536xf32>) -> tensor<1x1536xf32>
  return %r : tensor<1x1536xf32>
}
func.func @grp_1(%x: tensor<1x9x64xf32>, %w: tensor<1536x9x64xi8>, %s: tensor<1536x9xf32>) -> tensor<1x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<1x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<1x1536xf32>) -> tensor<1x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,g,k) -> (m,g,k)>, affine_map<(m,n,g,k) -> (n,g,k)>, affine_map<(m,n,g,k) -> (n,g)>, affine_map<(m,n,g,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction","reduction"]} ins(%x, %w, %s : tensor<1x9x64xf32>, tensor<1536x9x64xi8>, tensor<1536x9xf32>) outs(%f : tensor<1x1536xf32>) { ^bb0(%a: f32, %b: i8, %t: f32, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %h = arith.mulf %d, %t : f32
  %g = arith.addf %o, %h : f32
  linalg.yield %g : f32 } -> tensor<1x1536xf32>
  return %r : tensor<1x1536xf32>
}
func.func @row_4(%x: tensor<4x576xf32>, %w: tensor<1536x576xi8>, %s: tensor<1536xf32>) -> tensor<4x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<4x1536xf32>) -> tensor<4x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction"]} ins(%x, %w : tensor<4x576xf32>, tensor<1536x576xi8>) outs(%f : tensor<4x1536xf32>) { ^bb0(%a: f32, %b: i8, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %g = arith.addf %o, %d : f32
  linalg.yield %g : f32 } -> tensor<4x1536xf32>
  %q = linalg.generic {indexing_maps = [affine_map<(a,b)->(a,b)>, affine_map<(a,b)->(b)>, affine_map<(a,b)->(a,b)>], iterator_types = ["parallel","parallel"]} ins(%r, %s : tensor<4x1536xf32>, tensor<1536xf32>) outs(%e : tensor<4x1536xf32>) { ^bb0(%i: f32, %t: f32, %o: f32): %c = arith.mulf %i, %t : f32
   linalg.yield %c : f32 } -> tensor<4x1536xf32>
  return %q : tensor<4x1536xf32>
}
func.func @f32_4(%x: tensor<4x576xf32>, %w: tensor<1536x576xf32>) -> tensor<4x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<4x1536xf32>) -> tensor<4x1536xf32>
  %r = linalg.matmul indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>] ins(%x, %w : tensor<4x576xf32>, tensor<1536x576xf32>) outs(%f : tensor<4x1536xf32>) -> tensor<4x1536xf32>
  return %r : tensor<4x1536xf32>
}
func.func @grp_4(%x: tensor<4x9x64xf32>, %w: tensor<1536x9x64xi8>, %s: tensor<1536x9xf32>) -> tensor<4x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<4x1536xf32>) -> tensor<4x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,g,k) -> (m,g,k)>, affine_map<(m,n,g,k) -> (n,g,k)>, affine_map<(m,n,g,k) -> (n,g)>, affine_map<(m,n,g,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction","reduction"]} ins(%x, %w, %s : tensor<4x9x64xf32>, tensor<1536x9x64xi8>, tensor<1536x9xf32>) outs(%f : tensor<4x1536xf32>) { ^bb0(%a: f32, %b: i8, %t: f32, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %h = arith.mulf %d, %t : f32
  %g = arith.addf %o, %h : f32
  linalg.yield %g : f32 } -> tensor<4x1536xf32>
  return %r : tensor<4x1536xf32>
}
func.func @row_64(%x: tensor<64x576xf32>, %w: tensor<1536x576xi8>, %s: tensor<1536xf32>) -> tensor<64x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<64x1536xf32>) -> tensor<64x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction"]} ins(%x, %w : tensor<64x576xf32>, tensor<1536x576xi8>) outs(%f : tensor<64x1536xf32>) { ^bb0(%a: f32, %b: i8, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %g = arith.addf %o, %d : f32
  linalg.yield %g : f32 } -> tensor<64x1536xf32>
  %q = linalg.generic {indexing_maps = [affine_map<(a,b)->(a,b)>, affine_map<(a,b)->(b)>, affine_map<(a,b)->(a,b)>], iterator_types = ["parallel","parallel"]} ins(%r, %s : tensor<64x1536xf32>, tensor<1536xf32>) outs(%e : tensor<64x1536xf32>) { ^bb0(%i: f32, %t: f32, %o: f32): %c = arith.mulf %i, %t : f32
   linalg.yield %c : f32 } -> tensor<64x1536xf32>
  return %q : tensor<64x1536xf32>
}
func.func @f32_64(%x: tensor<64x576xf32>, %w: tensor<1536x576xf32>) -> tensor<64x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<64x1536xf32>) -> tensor<64x1536xf32>
  %r = linalg.matmul indexing_maps = [affine_map<(m,n,k) -> (m,k)>, affine_map<(m,n,k) -> (n,k)>, affine_map<(m,n,k) -> (m,n)>] ins(%x, %w : tensor<64x576xf32>, tensor<1536x576xf32>) outs(%f : tensor<64x1536xf32>) -> tensor<64x1536xf32>
  return %r : tensor<64x1536xf32>
}
func.func @grp_64(%x: tensor<64x9x64xf32>, %w: tensor<1536x9x64xi8>, %s: tensor<1536x9xf32>) -> tensor<64x1536xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x1536xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<64x1536xf32>) -> tensor<64x1536xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(m,n,g,k) -> (m,g,k)>, affine_map<(m,n,g,k) -> (n,g,k)>, affine_map<(m,n,g,k) -> (n,g)>, affine_map<(m,n,g,k) -> (m,n)>], iterator_types = ["parallel","parallel","reduction","reduction"]} ins(%x, %w, %s : tensor<64x9x64xf32>, tensor<1536x9x64xi8>, tensor<1536x9xf32>) outs(%f : tensor<64x1536xf32>) { ^bb0(%a: f32, %b: i8, %t: f32, %o: f32):
  %c = arith.sitofp %b : i8 to f32
  %d = arith.mulf %a, %c : f32
  %h = arith.mulf %d, %t : f32
  %g = arith.addf %o, %h : f32
  linalg.yield %g : f32 } -> tensor<64x1536xf32>
  return %r : tensor<64x1536xf32>
}
